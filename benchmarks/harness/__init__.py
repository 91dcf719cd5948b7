"""What benchmarks are measured, fed and drawn with."""
