"""Benchmarks of tensor-train tables."""
