"""The writes of a shard: their kinds, rounds and their parts, and bodies that arrive."""
