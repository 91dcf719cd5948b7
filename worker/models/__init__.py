"""Models that the trainer trains."""
