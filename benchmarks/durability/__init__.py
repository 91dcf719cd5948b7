"""Benchmarks of what outlives the end of a process: kills under load, faults of the network, checkpoints."""
