"""What of a step's gradients is sent, and what is held back until it is worth sending."""
