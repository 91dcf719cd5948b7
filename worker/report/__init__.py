"""What a run shows: figures while it runs, and at its end."""
