"""psctl size."""


def size() -> None:
    """X."""
