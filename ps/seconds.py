"""Numbers of seconds as users give them: of any numeric type, and infinity for as long as it takes."""

from __future__ import annotations

import math
from numbers import Real

from ps.errors import InvalidArgument

LONGEST_S = 1e8
"""Three years, which stands for ever: locks, condition variables and gRPC accept at most some hundred years."""


def seconds(value: object, name: str = "timeout_s") -> float:
    """Returns a number of seconds as a float of at most LONGEST_S. Raises InvalidArgument unless it is positive."""
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's scalars are Real
        raise InvalidArgument(f"{name}={value!r}: give a positive number of seconds (inf: as long as it takes)")
    try:
        number = float(value)
    except OverflowError:  # an integer, say
        number = -math.inf if str(value).startswith("-") else math.inf
    if not number > 0:
        raise InvalidArgument(f"{name}={value!r}: give a positive number of seconds (inf: as long as it takes)")
    return min(number, LONGEST_S)
