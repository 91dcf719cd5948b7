"""torchrec's KeyedJaggedTensor as bags. torchrec is not needed: its interface is, so the import never happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ps.errors import InvalidArgument
from worker.data.batch import Bags


def bags_of(sparse: Mapping[str, Bags] | Any) -> dict[str, Bags]:
    """{feature: Bags} of a mapping, or of anything shaped like a KeyedJaggedTensor (keys, values, lengths)."""
    if isinstance(sparse, Mapping):
        return dict(sparse)
    if not all(hasattr(sparse, name) for name in ("keys", "values", "lengths")):
        raise InvalidArgument(f"sparse input of type {type(sparse).__name__}: pass a mapping or a KeyedJaggedTensor")
    keys = list(sparse.keys())
    lengths_FB = sparse.lengths().reshape(len(keys), -1).cpu().long()
    values = sparse.values().cpu()
    weights = sparse.weights_or_none() if hasattr(sparse, "weights_or_none") else None
    ends = torch.cumsum(lengths_FB.sum(1), 0).tolist()
    bags = {}
    for key, lengths_B, end in zip(keys, lengths_FB, ends, strict=True):
        start = end - int(lengths_B.sum())
        offsets_B = torch.cumsum(lengths_B, 0) - lengths_B
        part = None if weights is None else weights[start:end].cpu().float()
        bags[key] = Bags(values[start:end].long(), offsets_B, part)
    return bags
