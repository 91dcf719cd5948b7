"""What a shard does for itself: rows go down, memory is found, a disk that fails is asked again later."""
