"""Selects which of a step's gradients are sent, and holds the others back until they are worth sending."""
