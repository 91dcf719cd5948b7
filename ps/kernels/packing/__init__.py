"""Kernels that pack ids and rows for the wire."""
