"""Reads all rows of a service."""

from __future__ import annotations

import numpy as np

import ps


def contents(client: ps.Client, table: str) -> tuple[np.ndarray, ...]:
    """Ids, rows and scores, ids ascending."""
    ids_N, rows_ND, scores_N = (np.concatenate(parts) for parts in zip(*client.export(table), strict=True))
    order_N = np.argsort(ids_N)
    return ids_N[order_N], rows_ND[order_N], scores_N[order_N]
