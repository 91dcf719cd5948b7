"""Prepared steps, and how their rows come up from disk."""
