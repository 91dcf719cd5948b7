"""The reads of a shard: pulls, exports, pooled bags."""
