"""The writes of a client: pushes, and writes of single rows."""
