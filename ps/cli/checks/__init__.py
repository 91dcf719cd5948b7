"""What psctl doctor checks."""
