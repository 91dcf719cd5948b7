"""How a client writes."""
