"""Benchmarks of the engine in one process."""
