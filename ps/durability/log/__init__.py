"""The log of a shard: its writes in their order, in files."""
