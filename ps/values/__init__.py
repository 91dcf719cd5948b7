"""Frozen, validated values: what configurations and optimizers are made of."""
