"""Prepared steps, and the way of their rows up from disk."""
