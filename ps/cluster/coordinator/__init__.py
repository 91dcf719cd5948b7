"""The coordinator knows which shard is where and which tables exist."""
