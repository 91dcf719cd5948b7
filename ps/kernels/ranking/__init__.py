"""Kernels that score rows and count ids, for importance and admission."""
