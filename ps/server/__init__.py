"""A shard on the wire: decode, hand to the shard, encode; health, limits, metrics."""
