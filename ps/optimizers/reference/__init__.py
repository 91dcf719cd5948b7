"""The updates of the optimizers in plain numpy: float32 in the order written, exact. Slots are unique."""
