"""What the two sides say to each other: arrays as messages, ids to shards, errors as codes. No state, no threads."""
