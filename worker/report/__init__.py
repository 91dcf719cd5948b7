"""What a training run prints: figures while it runs, and at its end."""
