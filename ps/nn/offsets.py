"""Checks where bags lie in a list of ids, for every layer that takes bags."""

from __future__ import annotations

import numpy as np
import torch

from ps.errors import InvalidArgument


def check_offsets(offsets: torch.Tensor, n: int) -> None:
    """Raises InvalidArgument unless the offsets, integers [B], part n ids into B bags: they begin with 0, never fall,
    and none exceeds n. With other offsets torch's own kernels would read memory beside the rows."""
    offsets_B = offsets.detach().cpu().numpy()
    if not len(offsets_B):
        if n:
            raise InvalidArgument(f"no offsets for {n} ids: they would be in no bag; one id a sample is arange({n})")
        return
    if offsets_B[0] != 0:
        raise InvalidArgument(f"offsets[0] is {offsets_B[0]}: the first bag must begin at 0")
    falling_K = np.flatnonzero(offsets_B[1:] < offsets_B[:-1])
    if len(falling_K):
        at = int(falling_K[0]) + 1
        raise InvalidArgument(
            f"offsets[{at}] is {offsets_B[at]} after {offsets_B[at - 1]}: offsets must never decrease; "
            "a bag begins where the one before it ends"
        )
    if offsets_B[-1] > n:
        raise InvalidArgument(f"offsets[{len(offsets_B) - 1}] is {offsets_B[-1]}, but there are only {n} ids")
