"""`ps.kernels.index.index`, on a dict."""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids, Slots


class IdIndex:
    """int64 -> slot."""

    def __init__(self) -> None:
        self._slot_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def find(self, ids_N: Ids, slots_N: Slots) -> None:
        """slots[i] = the slot of ids[i], or -1."""
        slots_N[:] = [self._slot_of.get(id_, -1) for id_ in ids_N.tolist()]

    def find_or_insert(self, ids_N: Ids, new_slots_N: Slots, slots_N: Slots) -> int:
        """An absent id takes the next of new_slots; returns how many were taken."""
        created = 0
        for i, id_ in enumerate(ids_N.tolist()):
            if id_ not in self._slot_of:
                self._slot_of[id_] = int(new_slots_N[created])
                created += 1
            slots_N[i] = self._slot_of[id_]
        return created

    def erase(self, ids_N: Ids, slots_N: Slots) -> int:
        """slots[i] = the slot that ids[i] had, or -1; returns how many were erased."""
        slots_N[:] = [self._slot_of.pop(id_, -1) for id_ in ids_N.tolist()]
        return int((slots_N >= 0).sum())

    def items(self) -> tuple[Ids, Slots]:
        """All ids and their slots, in order of insertion."""
        return np.array(list(self._slot_of), np.int64), np.array(list(self._slot_of.values()), np.int64)

    def reslot(self, ids_N: Ids, slots_N: Slots) -> None:
        """The ids have those slots from now on."""
        self._slot_of.update(zip(ids_N.tolist(), slots_N.tolist(), strict=True))
