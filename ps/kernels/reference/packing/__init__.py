"""The packing kernels in numpy."""
