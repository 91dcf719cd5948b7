"""Rows in RAM, or on a device: arenas, and what their rows are made of."""
