"""Rows in RAM, or on a device: arenas, and the forms of their rows."""
