"""The ranking kernels in numpy."""
