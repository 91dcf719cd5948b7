"""What runs inside a trainer."""
