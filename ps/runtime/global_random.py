"""The state of the random generators that a whole process shares, Python's and numpy's. Nothing in `ps` draws from
them: they are the program's, which may want to go on with them where it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


def states() -> dict[str, Any]:
    """Returns the states as numbers, strings, and lists and tuples of these."""
    kind, words, *numbers = np.random.get_state(legacy=True)  # noqa: NPY002  it is that of the global generator
    return {"python": random.getstate(), "numpy": (kind, np.asarray(words).tolist(), *numbers)}


def set_states(given: dict[str, Any]) -> None:
    """Sets the generators to states that `states` returned."""
    kind, words, *numbers = given["numpy"]
    np.random.set_state((kind, np.array(words, np.uint32), *numbers))  # noqa: NPY002  as above
    version, internal, gauss = given["python"]
    random.setstate((version, tuple(internal), gauss))
