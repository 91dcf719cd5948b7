"""The bytes of a block, part by part; ps/wire/encodings.py has the grammar."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Words
from ps.errors import InvalidArgument, LengthMismatch
from ps.wire.codec import Buffer


def padded(size: int) -> int:
    """Returns a size with padding up to a multiple of 4."""
    return -(-size // 4) * 4


def bits_bytes(n: int) -> int:
    """Returns the bytes that n bits take."""
    return -(-n // 32) * 4


def blank_words(n: int) -> Words:
    """Returns zeros for n bits."""
    return np.zeros(-(-n // 64), np.uint64)


def bytes_of(words: Words, n: int) -> npt.NDArray[np.uint8]:
    """Returns n bits as they are sent."""
    return words.view(np.uint8)[: bits_bytes(n)]


class Block:
    """Reads the bytes of a block from the front. Nothing is allocated for bytes that are missing."""

    def __init__(self, payload: Buffer, what: str) -> None:
        self._rest_B = np.frombuffer(payload, np.uint8)
        self._rest_B.setflags(write=False)
        self._what = what

    def bits(self, n: int, what: str) -> Words:
        """Takes n bits from the front and returns them as words, in which the bits beyond n are zero. Raises
        LengthMismatch or InvalidArgument."""
        size = bits_bytes(n)
        if size > len(self._rest_B):
            raise LengthMismatch(f"{self._what}: {what} takes {size:,} bytes, and {len(self._rest_B):,} are left")
        words = blank_words(n)
        words.view(np.uint8)[:size] = self._rest_B[:size]
        self._rest_B = self._rest_B[size:]
        if n % 64 and words[-1] >> np.uint64(n % 64):
            raise InvalidArgument(f"{self._what}: {what} has a bit beyond its {n:,}")
        return words

    def rest(self, size: int, what: str) -> npt.NDArray[np.uint8]:
        """Takes the last `size` bytes of the block, behind which there is only padding. Raises LengthMismatch or
        InvalidArgument."""
        if len(self._rest_B) != padded(size):
            raise LengthMismatch(
                f"{self._what}: {what} take {padded(size):,} bytes with their padding, "
                f"and {len(self._rest_B):,} are left"
            )
        if self._rest_B[size:].any():
            raise InvalidArgument(f"{self._what}: the padding is not zero")
        return self._rest_B[:size]
