"""Benchmarks of a service as a whole."""
