"""The types of arrays that the whole package speaks of, declared once.

A name of an array ends with its shape: `ids_N` has one id for each of N, `rows_ND` rows of dimension D.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Ids of rows: any int64."""
Slots = npt.NDArray[np.int64]
"""Places in an arena; -1 where an id has no row there."""
Rows = npt.NDArray[np.float32]
"""Values or gradients, [n, dim]; in an arena [slots, dim + optimizer state]."""
Flags = npt.NDArray[np.bool_]
"""One bool for each id or slot."""
Counts = npt.NDArray[np.uint32]
"""How often each id occurs."""
Hashes = npt.NDArray[np.uint64]
"""64-bit hashes of ids."""
Words = npt.NDArray[np.uint64]
"""Bits, 64 to a word, the lowest of the first word first."""
Ints = npt.NDArray[np.int64]
"""Whole numbers of any other kind."""
Positions = npt.NDArray[np.int64]
"""Which rows of a batch, or elements of a block."""
Starts = npt.NDArray[np.int64]
"""Where each bag begins in the positions of all, and where the last one ends."""
BagPositions = npt.NDArray[np.int32]
"""The rows of bags, as positions in a batch, bag after bag."""
Scores = npt.NDArray[np.float32]
"""Importance of each row."""
Values = npt.NDArray[np.float32]
"""Elements of rows, one after the other."""
Floats = npt.NDArray[Any]
"""float32 or float64: cores of a tensor train and rows made of them."""
Bytes = npt.NDArray[np.uint8]
"""Raw bytes."""
