"""Kernels that find things by id: the id index, its hash, the filter of ids, the unique ids of a batch."""
