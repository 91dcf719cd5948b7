"""The tools that benchmarks are measured, fed and drawn with."""
