"""The RPCs of a shard: decode, ask the shard, encode."""
