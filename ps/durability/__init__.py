"""What outlives the process of a shard: its log, and its state as a checkpoint holds it."""
