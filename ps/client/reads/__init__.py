"""How a client reads."""
