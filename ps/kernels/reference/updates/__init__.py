"""The update kernels in numpy."""
