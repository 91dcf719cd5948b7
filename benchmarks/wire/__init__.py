"""Benchmarks of the wire."""
