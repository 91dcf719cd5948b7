"""The operations of a shard, each one function from end to end (`ps.runtime.places`)."""
