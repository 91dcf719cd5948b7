"""What makes a shard outlive its process: the log of its writes."""
