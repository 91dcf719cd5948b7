"""Streams of clicks, planted and real, that the benchmarks of quality learn from. Each has a file of its own.

Real data that is not there is passed over with a line that says how to get it.
"""
