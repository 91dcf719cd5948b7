"""Benchmarks of what compressed communication costs in accuracy."""
