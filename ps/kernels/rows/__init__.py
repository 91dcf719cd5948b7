"""Kernels that make, move and read rows."""
