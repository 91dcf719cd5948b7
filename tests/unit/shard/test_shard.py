"""A write is applied whole or not at all, once, to the ids that it names."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

import ps
from ps.errors import (
    DimensionMismatch,
    DuplicateIds,
    InvalidArgument,
    LengthMismatch,
    PsError,
    ResourceExhausted,
    SequenceConflict,
    StepNotFound,
    TableExists,
    TableNotFound,
    Unavailable,
)
from ps.kernels.index.secret import SECRET
from ps.kernels.index.segments import MAX_FILL
from ps.shard import Shard, StepRef
from ps.shard.ledger import WriteId
from ps.shard.steps.look_ahead import LookAhead
from tests.unit.kernels.strategies import ids_of_hash
from tests.unit.shard.helpers import (
    DIM,
    a_write,
    everything,
    grads_of,
    ids_of,
    new_table,
    push,
    push_ids,
    read,
    read_target,
)

BIG_IDS = [
    -(2**63),
    -(2**63) + 1,
    -(2**32) - 1,
    -(2**31) - 1,
    -1,
    0,
    1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 1,
    2**53 + 1,
    2**63 - 1,
]


def ones(n: int) -> np.ndarray:
    return np.ones((n, DIM), np.float32)


# int64 ids cut to int32


def test_ids_of_any_value_are_ids_of_their_own(shard: Shard) -> None:
    """Each of these would meet another one if it were cut to 32 bits, rounded to a double, or taken as unsigned."""
    new_table(shard)
    values = np.arange(1, len(BIG_IDS) + 1, dtype=np.float32)
    push_ids(shard, "t", BIG_IDS, -values[:, None] * ones(len(BIG_IDS)))
    np.testing.assert_array_equal(read(shard, "t", BIG_IDS)[:, 0], values)
    np.testing.assert_array_equal(read(shard, "t", BIG_IDS[::-1])[:, 0], values[::-1])
    ids_N, rows_NW, _ = everything(shard, "t")
    assert ids_N.tolist() == BIG_IDS
    np.testing.assert_array_equal(rows_NW[:, 0], values)


def test_an_id_that_shares_its_low_32_bits_is_not_found(shard: Shard) -> None:
    new_table(shard)
    push_ids(shard, "t", [5, -1], ones(2))
    strangers = [5 + (1 << 32), 5 - (1 << 32), 5 + (1 << 63) - (1 << 64), 2**32 - 1]
    np.testing.assert_array_equal(read(shard, "t", strangers), np.zeros((4, DIM)))
    removed = shard.remove(a_write(), ids_of("t", strangers))
    assert not removed.existed_N.any()
    assert len(shard.tables["t"]) == 2


def test_ids_of_any_value_have_initial_values_of_their_own(shard: Shard) -> None:
    new_table(shard, initializer=ps.Uniform())
    rows = read(shard, "t", BIG_IDS)
    assert len(np.unique(rows, axis=0)) == len(BIG_IDS)
    push_ids(shard, "t", BIG_IDS, np.zeros((len(BIG_IDS), DIM)))
    np.testing.assert_array_equal(read(shard, "t", BIG_IDS), rows, "creating a row does not change what it reads as")


# all or nothing


def bad_pushes() -> dict[str, tuple[type[PsError], Callable[[Shard], object]]]:
    """Pushes to tables a (dim 4) and b (dim 4) of which the part for a is fine."""
    good = grads_of("a", ones(2))
    ids = [ids_of("a", [1, 100]), ids_of("b", [1, 200])]
    return {
        "wrong dim in the second table": (
            DimensionMismatch,
            lambda s: push(s, ids, good, grads_of("b", np.ones((2, DIM + 1)))),
        ),
        "too few gradients in the second table": (LengthMismatch, lambda s: push(s, ids, good, grads_of("b", ones(1)))),
        "too many gradients": (LengthMismatch, lambda s: push(s, ids, good, grads_of("b", ones(3)))),
        "the second table's gradients missing": (LengthMismatch, lambda s: push(s, ids, good)),
        "the tables in another order": (LengthMismatch, lambda s: push(s, ids, grads_of("b", ones(2)), good)),
        "duplicate ids in the second table": (
            DuplicateIds,
            lambda s: s.push(
                a_write(),
                s.look_ahead([ids_of("a", [1, 100]), ids_of("b", [7, 7])]),
                [good, grads_of("b", ones(2))],
            ),
        ),
        "an unknown second table": (
            TableNotFound,
            lambda s: push(s, [ids_of("a", [1, 100]), ids_of("absent", [1])], good, grads_of("absent", ones(1))),
        ),
        "one table twice": (
            InvalidArgument,
            lambda s: s.push(a_write(), s.look_ahead([ids_of("a", [1]), ids_of("a", [2])]), [good, good]),
        ),
        "counts of another length": (
            LengthMismatch,
            lambda s: s.push(a_write(), s.look_ahead([ids_of("a", [1, 100], [1])]), [good]),
        ),
        "an unknown step": (StepNotFound, lambda s: push(s, StepRef(9, 9), good)),
        "a sequence that is taken": (
            SequenceConflict,
            lambda s: push(s, ids, good, grads_of("b", ones(2)), write=WriteId(55, 1, 2)),
        ),
    }


def counted(shard: Shard) -> dict[str, object]:
    """What a shard counts outside its tables, but for the allocator's figures: those move with every array."""
    stats = shard.stats()
    held = stats.pop("bytes")
    assert isinstance(held, dict)
    return {"ledger": held["ledger"], "steps": held["steps"]} | {k: v for k, v in stats.items() if k != "tables"}


@pytest.mark.parametrize("case", bad_pushes())
def test_a_push_that_fails_changes_nothing(shard: Shard, case: str) -> None:
    for name in ("a", "b"):
        new_table(shard, name, optimizer=ps.Adagrad())
    push(shard, [ids_of("a", [1])], grads_of("a", ones(1)), write=WriteId(55, 1, 1))
    push_ids(shard, "b", [1], ones(1))
    before = [everything(shard, name) for name in ("a", "b")]
    stats = counted(shard)
    error, run = bad_pushes()[case]
    with pytest.raises(error):
        run(shard)
    for name, old in zip(("a", "b"), before, strict=True):
        for was, now in zip(old, everything(shard, name), strict=True):
            assert was.tobytes() == now.tobytes()
    assert counted(shard) == stats
    assert push_ids(shard, "a", [1], ones(1)).version == 5, "and the shard goes on"


def colliding_ids() -> np.ndarray:
    """More ids than one place of the index's deepest directory takes: no memory would be enough. Of this process alone,
    whose secret is known here."""
    chosen_N = ids_of_hash((np.arange(MAX_FILL + 50, dtype=np.uint64) << np.uint64(32)) | np.uint64(7))
    return (chosen_N.view(np.uint64) ^ SECRET).view(np.int64)


def no_room_in_the_index(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to arrange: the ids collide."""


def no_room_for_rows(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard.tables["b"].ram.rows._rows, "max_rows", 10)


def no_memory_for_a_copy(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise MemoryError("no room for a copy")

    monkeypatch.setattr(shard.tables["b"].reserve, "_initializer", SimpleNamespace(fill=fill))


@pytest.mark.parametrize("cause", [no_room_in_the_index, no_room_for_rows, no_memory_for_a_copy])
def test_a_push_that_does_not_fit_changes_nothing_and_its_repeat_is_not_doubled(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, cause: Callable[..., None]
) -> None:
    """The second table has no room for its new rows, when the first one has made its own: those are taken back."""
    for name in ("a", "b"):
        new_table(shard, name)
    push_ids(shard, "a", [1], ones(1))
    before = everything(shard, "a")
    stats = shard.stats()
    ids_b = colliding_ids()
    with monkeypatch.context() as patch:
        cause(shard, patch)
        for _ in range(2):
            write = a_write(sequence=77)
            ids = [ids_of("a", [1, 2]), ids_of("b", ids_b)]
            with pytest.raises((ResourceExhausted, MemoryError)):
                push(shard, ids, grads_of("a", ones(2)), grads_of("b", ones(len(ids_b))), write=write)
            for was, now in zip(before, everything(shard, "a"), strict=True):
                assert was.tobytes() == now.tobytes()
            after = shard.stats()
            for part in (stats, after, *stats["tables"].values(), *after["tables"].values()):
                part.pop("bytes", None)  # what was committed stays so
            assert after == stats
    some = [ids_of("a", [1, 2]), ids_of("b", range(10))]
    push(shard, some, grads_of("a", ones(2)), grads_of("b", ones(10)), write=write)
    np.testing.assert_array_equal(read(shard, "a", [1, 2])[:, 0], [-2, -1])
    np.testing.assert_array_equal(read(shard, "b", range(10))[:, 0], np.full(10, -1))


def test_a_prepared_step_survives_a_push_that_fails(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slots that it was given for its new rows were taken back, and others may have them by now."""
    new_table(shard, "a")
    new_table(shard, "b")
    step = StepRef(1, 1)
    shard.prepare(step, [ids_of("a", [1, 2]), ids_of("b", range(11))])
    with monkeypatch.context() as patch:
        no_room_for_rows(shard, patch)
        with pytest.raises(ResourceExhausted):
            push(shard, step, grads_of("a", ones(2)), grads_of("b", ones(11)))
    push_ids(shard, "a", [8, 9], 5 * ones(2))
    push(shard, step, grads_of("a", ones(2)), grads_of("b", ones(11)))
    np.testing.assert_array_equal(read(shard, "a", [1, 2, 8, 9])[:, 0], [-1, -1, -5, -5])


@pytest.mark.parametrize("operation", ["upsert", "assign", "remove"])
def test_an_explicit_write_that_fails_changes_nothing(shard: Shard, operation: str) -> None:
    new_table(shard)
    push_ids(shard, "t", [1, 2], ones(2))
    before = everything(shard, "t")
    write = getattr(shard, operation)
    blocks = [] if operation == "remove" else [[ones(2)]]
    with pytest.raises(DuplicateIds):
        write(a_write(), ids_of("t", [1, 1]), *blocks)
    with pytest.raises(TableNotFound, match="there are: t"):
        write(a_write(), ids_of("absent", [1, 2]), *blocks)
    if blocks:
        with pytest.raises(DimensionMismatch):
            write(a_write(), ids_of("t", [1, 2]), [np.ones((2, DIM + 1), np.float32)])
        with pytest.raises(LengthMismatch):
            write(a_write(), ids_of("t", [1, 2, 3]), [ones(2)])
    for was, now in zip(before, everything(shard, "t"), strict=True):
        assert was.tobytes() == now.tobytes()


# once


def test_a_repeated_push_is_answered_and_not_applied(shard: Shard) -> None:
    new_table(shard)
    write = WriteId(3, 1, 123)
    first = push(shard, [ids_of("t", [1])], grads_of("t", ones(1)), write=write)
    push_ids(shard, "t", [1], ones(1))
    again = push(shard, [ids_of("t", [1])], grads_of("t", ones(1)), write=write)
    assert (first.repeated, again.repeated) == (False, True)
    assert first.version == again.version == 2, "a repeat is told what the first was told"
    np.testing.assert_array_equal(read(shard, "t", [1]), -2 * ones(1))
    assert shard.stats()["repeated_pushes"] == 1


def test_a_push_by_step_is_known_again_although_its_step_is_gone(shard: Shard) -> None:
    new_table(shard)
    shard.prepare(StepRef(1, 1), [ids_of("t", [1])])
    write = WriteId(1, 1, 123)
    for repeated in (False, True):
        assert push(shard, StepRef(1, 1), grads_of("t", ones(1)), write=write).repeated is repeated
    np.testing.assert_array_equal(read(shard, "t", [1]), -ones(1))


@pytest.mark.parametrize("operation", ["upsert", "assign", "remove"])
def test_a_repeated_explicit_write_tells_what_the_first_one_told(shard: Shard, operation: str) -> None:
    new_table(shard)
    push_ids(shard, "t", [1], ones(1))
    blocks = [] if operation == "remove" else [[ones(2)]]
    write, ids = WriteId(3, 1, 5), ids_of("t", [1, 2])
    answers = [getattr(shard, operation)(write, ids, *blocks).existed_N.tolist() for _ in range(2)]
    assert answers == [[True, False]] * 2, "although after the first, other rows exist"


def test_a_failed_push_leaves_its_sequence_free(shard: Shard) -> None:
    new_table(shard)
    write = WriteId(3, 1, 5)
    with pytest.raises(LengthMismatch):
        push(shard, [ids_of("t", [1])], grads_of("t", ones(2)), write=write)
    assert not push(shard, [ids_of("t", [1])], grads_of("t", ones(1)), write=WriteId(3, 1, 6)).repeated


def test_what_the_ledger_holds_is_counted(shard: Shard) -> None:
    """An explicit write's answer has a bit for every row: a budget must see it."""
    new_table(shard)
    n = 200_000
    shard.upsert(a_write(), ids_of("t", range(n)), [ones(n)])
    assert shard.watch.memory_usage()["ledger"] >= n // 8


# pulls


def test_a_pull_changes_no_row_and_creates_none(shard: Shard) -> None:
    new_table(shard, initializer=ps.Normal())
    push_ids(shard, "t", [1], ones(1))
    before = everything(shard, "t")
    for target in ([ids_of("t", [1, 2, 3])], [ids_of("t", [2, 2, 1])]):
        read_target(shard, target)
    for was, now in zip(before, everything(shard, "t"), strict=True):
        assert was.tobytes() == now.tobytes()


def test_a_pull_of_several_tables_gives_each_its_rows_over_many_chunks(shard: Shard) -> None:
    """Tables of 3 MB, of nothing, and of the largest dim: chunks hold whole rows of one or more tables."""
    new_table(shard, "a", dim=64, initializer=ps.Uniform())
    new_table(shard, "empty", dim=3)
    new_table(shard, "wide", dim=65_536, initializer=ps.Constant(value=7))
    target = [ids_of("a", range(12_000)), ids_of("empty", []), ids_of("wide", range(5)), ids_of("t2", range(10))]
    new_table(shard, "t2", initializer=ps.Constant(value=9))
    a, empty, wide, t2 = read_target(shard, target)
    np.testing.assert_array_equal(a, read(shard, "a", range(12_000)))
    assert empty.shape == (0, 3)
    np.testing.assert_array_equal(wide, np.full((5, 65_536), 7))
    np.testing.assert_array_equal(t2, np.full((10, DIM), 9))


def test_a_pull_sees_one_version_however_late_its_reader_is(shard: Shard) -> None:
    new_table(shard, dim=64)
    stream = shard.pull([ids_of("t", range(20_000))])
    push_ids(shard, "t", range(20_000), np.ones((20_000, 64)))
    assert stream.head().version == 1
    assert not np.concatenate(list(stream)).any()


# tables and life


def test_a_table_exists_once_with_one_configuration(shard: Shard) -> None:
    config = new_table(shard)
    assert shard.create_table(config, exist_ok=True) is False
    with pytest.raises(TableExists, match="exist_ok=True"):
        shard.create_table(config)
    with pytest.raises(TableExists, match="you asked for"):
        shard.create_table(config.model_copy(update={"seed": 1}), exist_ok=True)


def test_a_dropped_table_is_gone_with_its_rows(shard: Shard) -> None:
    new_table(shard)
    push_ids(shard, "t", [1], ones(1))
    assert shard.drop_table("t") is True
    with pytest.raises(TableNotFound):
        read(shard, "t", [1])
    with pytest.raises(TableNotFound):
        shard.drop_table("t")
    assert shard.drop_table("t", missing_ok=True) is False
    new_table(shard)
    np.testing.assert_array_equal(read(shard, "t", [1]), np.zeros((1, DIM)))


def test_a_closed_shard_refuses_and_may_be_closed_again() -> None:
    shard = Shard(0)
    new_table(shard)
    shard.close()
    for call in (
        lambda: push_ids(shard, "t", [1], ones(1)),
        lambda: shard.pull([ids_of("t", [1])]),
        lambda: shard.prepare(StepRef(1, 1), [ids_of("t", [1])]),
        lambda: shard.look_ahead([ids_of("t", [1])]),
        shard.stats,
    ):
        with pytest.raises(Unavailable):
            call()
    shard.close()


def test_a_failed_look_ahead_is_told_by_the_push(shard: Shard) -> None:
    ahead = shard.look_ahead([ids_of("absent", [1])])
    with pytest.raises(TableNotFound):
        shard.push(a_write(), ahead, [grads_of("absent", ones(1))])
    assert isinstance(ahead, LookAhead)


def test_export_pages_give_every_row_that_lives_through_them_just_once(shard: Shard) -> None:
    """Rows are removed, moved to reused slots and added between the pages."""
    new_table(shard)
    push_ids(shard, "t", range(100), ones(100))
    seen: list[int] = []
    cursor, pages = 0, 0
    while True:
        page = shard.export_page("t", cursor, 10)
        ids_N, rows_ND, scores_N, cursor = page.ids_N, page.values_ND, page.scores_N, page.next_cursor
        assert len(ids_N) == len(rows_ND) == len(scores_N)
        seen += ids_N.tolist()
        if not cursor:
            break
        pages += 1
        shard.remove(a_write(), ids_of("t", [pages, 100 - pages]))
        push_ids(shard, "t", [1000 + pages], ones(1))
    lived = set(range(100)) - {i for p in range(1, pages + 1) for i in (p, 100 - p)}
    assert len(seen) == len(set(seen))
    assert lived <= set(seen)


@pytest.mark.parametrize("cursor", [4096, 4097, 2**31, 2**63, 2**64 - 1])
def test_an_export_cursor_beyond_the_end_is_an_empty_last_page(shard: Shard, cursor: int) -> None:
    new_table(shard)
    push_ids(shard, "t", range(99), ones(99))
    page = shard.export_page("t", cursor, 10)
    ids_N, rows_ND, next_cursor = page.ids_N, page.values_ND, page.next_cursor
    assert (len(ids_N), rows_ND.shape, next_cursor) == (0, (0, DIM), 0)
