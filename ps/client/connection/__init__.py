"""How a client reaches the shards: routing, transports, threads, retries."""
