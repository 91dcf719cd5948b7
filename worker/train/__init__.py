"""A training run: its options, its trainers, their end."""
