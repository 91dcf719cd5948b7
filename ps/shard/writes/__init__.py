"""What a shard does to write: rounds, their parts, and the bodies of writes that arrive."""
