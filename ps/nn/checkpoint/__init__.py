"""Checkpoints of a training run: the trainer's side and the rows of the service, as one thing."""
