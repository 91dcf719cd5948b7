"""The formulas behind `psctl size`."""
