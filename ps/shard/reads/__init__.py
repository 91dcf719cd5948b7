"""What a shard reads for others: pulls, exports, pooled bags."""
