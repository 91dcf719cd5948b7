"""The coordinator: which shard is where, and which tables exist."""
