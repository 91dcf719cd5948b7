"""What Ray does: actors, launching, a local cluster."""
