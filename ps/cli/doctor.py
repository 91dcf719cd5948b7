"""psctl doctor."""


def doctor() -> None:
    """X."""
