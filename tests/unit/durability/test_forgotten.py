"""Nothing that a shard keeps is forgotten: what can change is saved, or `not_kept.py` says why it need not be."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import ps
from ps.shard import Shard
from tests.unit.durability.not_kept import NOT_KEPT
from tests.unit.durability.walk import Assigned, Found, walk
from tests.unit.shard.helpers import a_write, push
from tests.unit.shard.test_replay import DIM, TABLES, gradients

KINDS = ["ram", "disk", "device"]


@contextmanager
def a_shard(kind: str) -> Iterator[Shard]:
    """With tables of all kinds that have had some pushes."""
    with TemporaryDirectory() as folder:
        on_disk = {"disk": {"path": Path(folder)}, "memory": {"ram_bytes": 256 << 20}}
        settings: dict[str, Any] = on_disk if kind == "disk" else {}
        shard = Shard(0, ps.ServiceConfig(watching={"metrics": False}, **settings))
        device = ps.TableConfig(name="device", dim=DIM, device="torch-cpu")
        try:
            for table in [device] if kind == "device" else TABLES.values():
                shard.create_table(table)
            rng = np.random.default_rng(0)
            for _ in range(5):
                target, grads = zip(*(gradients(name, rng) for name in shard.tables), strict=True)
                push(shard, target, *grads, write=a_write())
            yield shard
        finally:
            shard.close()


@functools.cache
def found(kind: str) -> frozenset[Found]:
    with a_shard(kind) as shard:
        return frozenset(shard.engine.run(lambda: list(walk(shard))))


def missing(attributes: frozenset[Found]) -> list[tuple[str, str]]:
    return sorted({each[:2] for each in attributes if not each.saved} - NOT_KEPT)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_change_is_saved_or_need_not_be(kind: str) -> None:
    assert not missing(found(kind)), "neither in the component's `state` nor in tests/unit/durability/not_kept.py"


def test_the_list_of_what_is_not_saved_has_nothing_else() -> None:
    attributes = frozenset().union(*map(found, KINDS))
    assert not NOT_KEPT - {each[:2] for each in attributes}, "there is no such attribute any more"
    assert not NOT_KEPT & {each[:2] for each in attributes if each.saved}, "it is saved"


def test_all_parts_of_all_kinds_of_tables_are_looked_at() -> None:
    owners = {each.owner for kind in KINDS for each in found(kind) if each.saved}
    assert owners >= {"Ranking", "SketchGate", "LiftGate", "Cuts", "Cores", "Counters", "PushCount", "Ledger", "Commit"}


NEW: dict[str, object] = {
    "_counter": 0,
    "_array_N": np.zeros(3),
    "_seen": set(),
    "_by_id": {1: 2},
    "_pair": (np.zeros(1), 1),
    "_last": None,
    "_foreign": object(),
}


def test_a_new_attribute_is_noticed() -> None:
    with a_shard("ram") as shard:
        gate = shard.tables["adam"].reserve._gate
        for name, value in NEW.items():
            setattr(gate, name, value)
        assert missing(frozenset(walk(shard))) == [("SketchGate", name) for name in sorted(NEW)]


def test_what_only_constructors_are_given_is_no_state() -> None:
    source = """
class Gate:
    def __init__(self, p):
        self.p, self._size = p, len(p)
        self._counter = 0
        self._hand = self._end = -1
        self._late = self._shown = p
        for self._turn in p: pass

    def refuse(self):
        self._late += 1
        with p as self._opened: pass


def turn(gate):
    gate._shown = 1
"""
    assigned = Assigned()
    assigned.note(ast.parse(source))
    names = {name for _, name in assigned.by_constructors | assigned.by_others}
    assert {name for name in names if assigned.only_given(["Gate"], name)} == {"p", "_size", "_turn"}
    assert not any(assigned.only_given(["Other"], name) for name in names)
