"""The gRPC server of a shard: decodes requests, asks the shard, encodes answers; health, limits, metrics."""
