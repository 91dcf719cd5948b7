"""What a shard does for itself: moves rows to disk, finds memory, retries a disk that failed."""
