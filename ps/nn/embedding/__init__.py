"""The embedding layer: rows on the shards, gradients that wait for a step, pushes on their way."""
