"""What outlives the process of a shard: its state, saved and restored."""
