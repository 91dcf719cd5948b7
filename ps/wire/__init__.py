"""The messages between client and shards: arrays as messages, ids to shards, errors as codes. No state, no threads."""
