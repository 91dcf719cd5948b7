"""The index kernels in numpy."""
