"""How a server is watched: metrics, logs, traces."""
