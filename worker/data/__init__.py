"""The sources of a trainer's batches: flights, Criteo files, synthetic clicks. They work in numpy and yield torch
tensors."""
