"""Kernels that apply gradients, or hold them back."""
