"""The updates of the optimizers in plain numpy: float32, computed exactly in the order written. Slots are unique."""
