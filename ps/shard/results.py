"""The results that the ledger keeps, as arrays: how they are saved and given back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ps.kept import KeptState
from ps.shard.requests import PushResult, WriteResult

PUSH = -1
"""Stands in place of the number of ids of a result that is that of a push."""


def packed(results: Sequence[PushResult | WriteResult]) -> dict[str, Any]:
    """Returns int64 arrays with one element a result, and the flags of all, uint8, one after the other."""
    writes = [result for result in results if isinstance(result, WriteResult)]
    return {
        "versions": np.array([result.version for result in results], np.int64),
        "ids": np.array([result.n if isinstance(result, WriteResult) else PUSH for result in results], np.int64),
        "staleness": np.array([getattr(result, "staleness", 0) for result in results], np.int64),
        "existed": np.concatenate([np.empty(0, np.uint8), *(result.existed for result in writes)]),
    }


def unpacked(state: KeptState) -> list[PushResult | WriteResult]:
    """Returns the results that `packed` was given."""
    ids_E = state["ids"]
    ends_E = np.cumsum(np.maximum(-(-ids_E // 8), 0))
    flags = np.split(state["existed"], ends_E[:-1]) if len(ids_E) else []
    columns = (state["versions"].tolist(), ids_E.tolist(), state["staleness"].tolist(), flags)
    return [
        PushResult(version, stale) if n == PUSH else WriteResult(version, n, existed.copy())
        for version, n, stale, existed in zip(*columns, strict=True)
    ]
