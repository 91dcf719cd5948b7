"""The types of arrays that the whole package speaks of, declared once.

A name of an array ends with its shape: `ids_N` has one id for each of N, `rows_ND` rows of dimension D.
"""

from __future__ import annotations

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
Bytes = npt.NDArray[np.uint8]
"""Raw bytes."""
