"""What the processes of `crash` tell each other, as one line of text. All of them are children of one process."""

from __future__ import annotations

import base64
import pickle
from typing import Any


def packed(value: Any) -> str:
    """Returns a value as a word without spaces."""
    return base64.b64encode(pickle.dumps(value)).decode()


def unpacked(word: str) -> Any:
    """Returns the value that `packed` was given."""
    return pickle.loads(base64.b64decode(word))
