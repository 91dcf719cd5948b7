"""The row kernels in numpy."""
