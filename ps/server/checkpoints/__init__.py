"""Checkpoints of a service: each shard writes and restores its part, and one of them, or the coordinator, has all do
it."""
