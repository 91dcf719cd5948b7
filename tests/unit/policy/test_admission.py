"""Who gets a row: decided from logged state alone, and a push that fails leaves no trace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import ps
from ps.policy.admission import LotteryGate, SketchGate
from ps.shard import Gradients, Shard
from ps.shard.ledger import WriteId
from tests.unit.shard.helpers import DIM, a_write, ids_of, new_table, push, push_ids, read

THRICE = ps.CountThreshold(min_count=3, cells=1 << 12)


@pytest.fixture
def gated(shard: Shard) -> Shard:
    new_table(shard, admission=THRICE, half_life_pushes=64, optimizer=ps.Adam(lr=0.5))
    return shard


def test_a_push_of_some_that_are_refused_updates_the_others_whatever_the_order_and_the_blocks(gated: Shard) -> None:
    """A shard without a gate, given only what was admitted, is the specification."""
    plain = Shard(0)
    new_table(plain, optimizer=ps.Adam(lr=0.5))
    admitted = [1, 4, 6]
    for shard, ids in ((gated, admitted), (plain, admitted)):
        shard.upsert(a_write(), ids_of("t", ids), [np.zeros((3, DIM), np.float32)])
    rng = np.random.default_rng(0)
    for ids in ([9, 1, 4, 8, 6], [6, 4, 7, 1], [11, 12], [1, 6]):
        block_ND = rng.standard_normal((len(ids), DIM)).astype(np.float32)
        push(gated, [ids_of("t", ids)], Gradients("t", [block_ND[:1], block_ND[1:3], block_ND[3:]]))
        kept = [i for i, id_ in enumerate(ids) if id_ in admitted]
        push_ids(plain, "t", [ids[i] for i in kept], block_ND[kept])
    assert read(gated, "t", admitted).tobytes() == read(plain, "t", admitted).tobytes()
    assert not read(gated, "t", [9, 8, 7, 11, 12]).any(), "these read as initial values"
    stats = gated.tables["t"].stats()
    assert (stats["rows"], stats["rows_refused"], stats["rows_updated"]) == ({"hot": 3, "disk": 0}, 5, 8)
    assert gated.tables["t"].memory_usage()["hot"]["admission"] == 4 * 2 * (1 << 12)
    plain.close()


def test_a_push_that_fails_or_is_repeated_counts_nothing(gated: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    new_table(gated, name="full")
    ones = np.ones((1, DIM), np.float32)

    def fails(*_: object) -> None:
        raise ps.ResourceExhausted("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(gated.tables["full"].ram, "insert", fails)
        for _ in range(5):
            with pytest.raises(ps.ResourceExhausted):
                push(gated, [ids_of("t", [1]), ids_of("full", [1])], Gradients("t", [ones]), Gradients("full", [ones]))
    write = a_write()
    for _ in range(5):
        push(gated, [ids_of("t", [1])], Gradients("t", [ones]), write=WriteId(*vars(write).values()))
    assert _sizes(gated, [[1], [1]]) == [0, 1], "the third push that went through"
    assert gated.tables["t"].counts.rows_refused == 2


def test_counts_count_and_fade(gated: Shard) -> None:
    push(gated, [ids_of("t", [1, 2], counts=[3, 2])], Gradients("t", [np.ones((2, DIM), np.float32)]))
    assert gated.tables["t"].find(np.array([1, 2])).tolist() == [0, -1]
    for _ in range(64 * 2):  # two half-lives of others' pushes
        push_ids(gated, "t", [1], np.ones((1, DIM)))
    assert _sizes(gated, [[2], [2], [2]]) == [1, 1, 2]


def test_an_upsert_admits(gated: Shard) -> None:
    gated.upsert(a_write(), ids_of("t", [5]), [np.ones((1, DIM), np.float32)])
    assert len(gated.tables["t"]) == 1


def test_lots_are_the_same_on_every_shard_and_differ_from_push_to_push() -> None:
    ids_N, ones_N = np.arange(20_000), np.ones(20_000, np.uint32)
    left, right, other = LotteryGate(0.25, 7), LotteryGate(0.25, 7), LotteryGate(0.25, 8)
    admitted = [gate.admits(ids_N, ones_N, push) for gate in (left, right) for push in (1, 2)]
    assert (admitted[0] == admitted[2]).all()
    assert (admitted[1] == admitted[3]).all()
    assert (admitted[0] != admitted[1]).any()
    assert (admitted[0] != other.admits(ids_N, ones_N, 1)).any()
    assert abs(np.mean(admitted) - 0.25) < 0.01
    assert LotteryGate(1.0, 7).admits(ids_N, ones_N, 1).all()


def test_a_sketch_has_the_cells_that_were_asked_for() -> None:
    assert SketchGate(2, 1 << 12).nbytes == 8 << 12
    assert SketchGate(2, (1 << 12) + 1).nbytes == 8 << 13


def _sizes(shard: Shard, pushes: Sequence[list[int]]) -> list[int]:
    """Rows of the table after each push."""
    sizes = []
    for ids in pushes:
        push_ids(shard, "t", ids, np.ones((len(ids), DIM)))
        sizes.append(len(shard.tables["t"]))
    return sizes
