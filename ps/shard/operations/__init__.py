"""What a shard does, each operation as one function from end to end (`ps.runtime.places`)."""
