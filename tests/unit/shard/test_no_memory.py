"""A write for which there is no memory, wherever that shows while it is reserved, leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ps.kernels.ranking import score
from ps.policy.importance import Signals
from ps.shard import Shard, TableIds
from ps.shard.ledger import Ledger
from ps.storage.ram.rows import PlainRows
from ps.table.cold.cold import Cold
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, read

ONES = np.ones((4, DIM), np.float32)
WRITES: dict[str, Callable[[Shard, TableIds], object]] = {
    "push": lambda shard, ids: push(shard, [ids], grads_of("t", ONES)),
    "upsert": lambda shard, ids: shard.upsert(a_write(), ids, [ONES]),
}


def breaking(*_: object, **__: object) -> Any:
    raise MemoryError("injected")


@pytest.mark.parametrize("do", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize(
    "seam",
    [(score, "lots"), (Cold, "created"), (PlainRows, "place"), (PlainRows, "set"), (Signals, "added")],
    ids=["lots", "created", "place", "set", "added"],
)
def test_rows_that_were_being_created_are_gone(
    shard: Shard, do: Callable[[Shard, TableIds], object], seam: tuple[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_table(shard)
    table = shard.tables["t"]
    monkeypatch.setattr(*seam, breaking)
    with pytest.raises(MemoryError):
        do(shard, ids_of("t", range(4)))
    monkeypatch.undo()
    assert (len(table.ram), len(table), shard.poisoned) == (0, 0, None)
    do(shard, ids_of("t", range(4, 8)))  # others get the slots
    do(shard, ids_of("t", range(4)))
    assert len(table.ram) == len(table) == 8
    slots_N = shard.engine.run(lambda: table.find(np.arange(8)))
    assert len(set(slots_N.tolist())) == 8, "no two ids share a slot"
    assert np.array_equal(read(shard, "t", range(4)), read(shard, "t", range(4, 8)))


def test_a_write_whose_place_in_the_ledger_is_not_used_gives_it_back(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_table(shard)
    write, ids, plain = a_write(), ids_of("t", range(4)), Ledger.reserve

    def too_late(ledger: Ledger[Any], writes: Any) -> Any:
        plain(ledger, writes)
        raise MemoryError("injected")

    monkeypatch.setattr(Ledger, "reserve", too_late)
    with pytest.raises(MemoryError):
        shard.upsert(write, ids, [ONES])
    monkeypatch.undo()
    assert shard.core.ledger.nbytes == 0
    assert not shard.upsert(write, ids, [ONES]).existed_N.any()
