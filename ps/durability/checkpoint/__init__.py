"""Checkpoints as files: `catalog` is the way in."""
