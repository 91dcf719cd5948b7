"""What psctl shows."""
