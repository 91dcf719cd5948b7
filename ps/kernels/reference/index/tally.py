"""`ps.kernels.index.tally`, by a dict. Exact."""

from __future__ import annotations

from ps.arrays import Ids


def add(tally: dict[int, int], ids_N: Ids, counts_N: Ids) -> int:
    """Adds to the counts of ids; returns how many are new."""
    before = len(tally)
    for id_, count in zip(ids_N.tolist(), counts_N.tolist(), strict=True):
        if count:
            tally[id_] = tally.get(id_, 0) + count
    return len(tally) - before


def take(tally: dict[int, int], ids_N: Ids, most: int, out_N: Ids) -> int:
    """Takes up to `most` from the count of each id; returns how many are gone."""
    before = len(tally)
    for i, id_ in enumerate(ids_N.tolist()):
        out_N[i] = min(tally.get(id_, 0), most)
        if id_ in tally:
            tally[id_] -= int(out_N[i])
            if not tally[id_]:
                del tally[id_]
    return before - len(tally)
