"""The ledger: a repeat is answered, a contradiction refused, and what cannot be judged is never guessed at."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.errors import InternalError, SequenceConflict
from ps.shard import ledger as module
from ps.shard.ledger import Ledger, WriteId
from ps.shard.requests import PushResult

T = TypeVar("T")
LOTS = 1 << 30


def recorded(ledger: Ledger[T], write: WriteId, result: T, nbytes: int = 0) -> None:
    ledger.record(ledger.reserve([(write, result, nbytes)]))


def test_a_repeat_is_answered_with_its_result() -> None:
    ledger: Ledger[str] = Ledger(window=16, max_bytes=LOTS)
    assert ledger.answer(WriteId(1, 1, 10)) is None
    recorded(ledger, WriteId(1, 1, 10), "first")
    assert ledger.answer(WriteId(1, 1, 10)) == "first"


def test_the_same_sequence_with_another_body_is_refused() -> None:
    ledger: Ledger[str] = Ledger(window=16, max_bytes=LOTS)
    recorded(ledger, WriteId(1, 1, 10), "first")
    with pytest.raises(SequenceConflict, match="another body"):
        ledger.answer(WriteId(1, 1, 11))
    assert ledger.answer(WriteId(1, 1, 10)) == "first", "the refusal changed nothing"


def test_a_write_that_is_being_applied_has_no_answer_and_one_that_is_withdrawn_is_new() -> None:
    ledger: Ledger[str] = Ledger(window=16, max_bytes=LOTS)
    write = WriteId(1, 1, 10)
    reserved = ledger.reserve([(write, "first", 100)])
    with pytest.raises(InternalError, match="is being applied"):
        ledger.answer(write)
    ledger.withdraw([write])
    assert ledger.answer(write) is None
    assert ledger.nbytes == 0
    reserved = ledger.reserve([(write, "again", 100)])
    ledger.record(reserved)
    assert ledger.answer(write) == "again"


def test_of_writes_that_find_no_room_together_none_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger: Ledger[str] = Ledger(window=16, max_bytes=LOTS)
    plain, adds = Ledger._add, []

    def second_fails(self: Ledger[str], *arguments: object) -> object:
        adds.append(arguments)
        if len(adds) == 2:
            raise MemoryError("injected")
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "_add", second_fails)
    first, second = WriteId(1, 1, 0), WriteId(2, 1, 0)
    with pytest.raises(MemoryError):
        ledger.reserve([(first, "first", 0), (second, "second", 0)])
    assert ledger.answer(first) is ledger.answer(second) is None
    assert ledger.nbytes == 0


def test_workers_do_not_see_each_other() -> None:
    ledger: Ledger[str] = Ledger(window=16, max_bytes=LOTS)
    recorded(ledger, WriteId(1, 1, 10), "first")
    assert ledger.answer(WriteId(2, 1, 99)) is None


def test_what_fell_out_of_the_window_is_refused_and_the_edge_is_exact() -> None:
    ledger: Ledger[int] = Ledger(window=16, max_bytes=LOTS)
    for sequence in range(1, 101):
        recorded(ledger, WriteId(1, sequence, sequence), sequence)
    assert ledger.answer(WriteId(1, 85, 85)) == 85, "16 back from 100, itself included"
    with pytest.raises(SequenceConflict, match="only writes after 84"):
        ledger.answer(WriteId(1, 84, 84))


def test_writes_may_come_out_of_order_inside_the_window() -> None:
    """Two threads of one worker, or a push that was delayed."""
    ledger: Ledger[int] = Ledger(window=16, max_bytes=LOTS)
    recorded(ledger, WriteId(1, 20, 0), 20)
    assert ledger.answer(WriteId(1, 5, 0)) is None
    recorded(ledger, WriteId(1, 5, 0), 5)
    assert ledger.answer(WriteId(1, 5, 0)) == 5
    assert ledger.answer(WriteId(1, 4, 0)) is None, "far behind, but nothing was ever forgotten"


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(16, 20))
def test_no_write_is_ever_new_twice(sequences: list[int], window: int) -> None:
    """However they arrive: each sequence is applied at most once, and a repeat gets the answer of its first time."""
    ledger: Ledger[int] = Ledger(window, LOTS)
    applied: dict[int, int] = {}
    for i, sequence in enumerate(sequences):
        write = WriteId(1, sequence, sequence)
        try:
            answer = ledger.answer(write)
        except SequenceConflict:
            assert len(applied) > window
            continue
        if answer is None:
            assert sequence not in applied
            applied[sequence] = i
            recorded(ledger, write, i)
        else:
            assert answer == applied[sequence]
    assert ledger.nbytes <= window * module.ENTRY_BYTES + module.WORKER_BYTES


def test_the_number_of_workers_is_bounded_and_the_longest_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORKERS", 3)
    ledger: Ledger[int] = Ledger(window=16, max_bytes=LOTS)
    for worker in (1, 2, 3):
        recorded(ledger, WriteId(worker, 1, 0), worker)
    recorded(ledger, WriteId(1, 2, 0), 10)
    recorded(ledger, WriteId(4, 1, 0), 4)
    assert ledger.answer(WriteId(1, 1, 0)) == 1, "heard of lately"
    assert ledger.answer(WriteId(2, 1, 0)) is None, "the longest silent"
    assert ledger.nbytes == 4 * module.ENTRY_BYTES + 3 * module.WORKER_BYTES


def test_bytes_are_bounded_and_what_was_forgotten_for_them_is_refused() -> None:
    """The answers of the worker that was silent longest go first; the write just recorded always stays."""
    entry = module.ENTRY_BYTES + 1000
    workers = 2 * module.WORKER_BYTES
    ledger: Ledger[int] = Ledger(window=16, max_bytes=3 * entry + workers)
    for worker, sequence in ((1, 1), (2, 1), (1, 2), (1, 3)):
        recorded(ledger, WriteId(worker, sequence, 0), sequence, nbytes=1000)
    assert ledger.nbytes == 3 * entry + workers
    assert [ledger.answer(WriteId(1, sequence, 0)) for sequence in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(SequenceConflict, match="may have been applied or not"):
        ledger.answer(WriteId(2, 1, 0))
    assert ledger.answer(WriteId(2, 2, 0)) is None
    recorded(ledger, WriteId(2, 2, 0), 2, nbytes=10 * entry)
    assert ledger.answer(WriteId(2, 2, 0)) == 2
    with pytest.raises(SequenceConflict):
        ledger.answer(WriteId(1, 3, 0))


def test_workers_that_are_many_are_bounded_too_and_bytes_are_those_that_it_takes() -> None:
    """Of each a marker stays of what was forgotten: half of the bytes at most."""
    ledger: Ledger[PushResult] = Ledger(window=16, max_bytes=1 << 20)
    random = Random(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for version in range(3000):
            recorded(
                ledger, WriteId(random.getrandbits(62), 1 << 40, random.getrandbits(128)), PushResult(1 << 40 | version)
            )
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert ledger.nbytes <= 1 << 20
    assert taken == pytest.approx(ledger.nbytes, rel=0.15)
