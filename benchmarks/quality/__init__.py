"""Benchmarks of the accuracy that compressed communication costs."""
