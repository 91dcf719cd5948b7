"""What fails between log and record poisons the shard, and no write that was acknowledged is lost or doubled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import numpy as np
import pytest

import ps
from ps.durability.checkpoint.load import load_rows
from ps.errors import InternalError, ShardPoisoned
from ps.round import Round
from ps.shard import Shard, StepRef, TableIds
from ps.shard.commit import Commit, Ready
from ps.shard.ledger import Ledger, WriteId
from ps.shard.writes.evict import Evict
from ps.shard.writes.evict_rows import EvictRows
from ps.shard.writes.forget import Forget
from ps.shard.writes.write import Write
from ps.storage.ram.rows import PlainRows
from ps.table.reserve import Reserve
from tests.conftest import QUIET
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, read
from tests.unit.shard.histories import History, answers, held, replayed

ONES = np.ones((4, DIM), np.float32)
IDS = ids_of("t", range(4))
SOME = ids_of("t", [0, 9])
SETTINGS: dict[str, Any] = {"importance": ps.Importance(frequency=1, external=1), "max_rows_per_shard": 50}
Do = Callable[[Shard, WriteId], object]


def create(shard: Shard, write: WriteId) -> object:
    return new_table(shard, "new", optimizer=ps.Adam())


def in_round(shard: Shard, write: WriteId) -> object:
    with shard.look_ahead([SOME]) as one, shard.look_ahead([IDS]) as other:
        first = shard.rounds.join(Round("g", 1, 1, 2), 10, WriteId(9, write.sequence, 9), other, [grads_of("t", ONES)])
        with suppress(InternalError):
            shard.rounds.join(Round("g", 1, 0, 2), 10, write, one, [grads_of("t", ONES[:2])])
        return first.outcome.result()


def by_itself(shard: Shard, write: Write) -> object:
    return shard.engine.run(lambda: shard.core.commit.carry_out((), lambda: Ready(write)))


def evict_rows(shard: Shard, write: WriteId) -> object:
    statistics_N2 = shard.engine.run(lambda: shard.tables["t"].page(0, 100)[0]).statistics_N2[:2]
    ids_N = shard.engine.run(lambda: shard.tables["t"].page(0, 100)[0]).ids_N[:2]
    return by_itself(shard, EvictRows(TableIds("t", ids_N), statistics_N2))


KINDS: dict[str, Do] = {
    "push": lambda shard, write: push(
        shard, [SOME, ids_of("u", [5])], grads_of("t", ONES[:2]), grads_of("u", ONES[:1]), write=write
    ),
    "push by step": lambda shard, write: push(shard, StepRef(1, 1), grads_of("t", ONES), write=write),
    "whole round": in_round,
    "upsert": lambda shard, write: shard.upsert(write, SOME, [ONES[:2]]),
    "assign": lambda shard, write: shard.assign(write, SOME, [ONES[:2]]),
    "remove": lambda shard, write: shard.remove(write, SOME),
    "report": lambda shard, write: shard.report_importance(write, SOME, np.ones(2, np.float32)),
    "forget": lambda shard, write: by_itself(shard, Forget(ids_of("t", [0, 3]))),
    "evict": lambda shard, write: by_itself(shard, Evict({"t": 2, "u": 3})),
    "evict rows": evict_rows,
    "load": lambda shard, write: load_rows(shard, SOME, ONES[:2], np.ones(2, np.float32), 3),
    "create": create,
    "drop": lambda shard, write: shard.drop_table("t"),
    "change": lambda shard, write: shard.set_optimizer(write, "t", {"lr": 0.5}),
}
OWN = [KINDS[name] for name in ("forget", "evict", "evict rows", "load")]
REPEATABLE = [name for name, do in KINDS.items() if name not in ("create", "drop") and do not in OWN]
WRITE = WriteId(5, 1, 5)
EARLIER = [a_write(), a_write()]


@contextmanager
def running(history: History | None = None) -> Iterator[Shard]:
    shard = Shard(0, QUIET, history=history)
    try:
        yield shard
    finally:
        shard.close()


def begun(shard: Shard) -> Shard:
    """With two tables, some rows, and a prepared step."""
    for name in "tu":
        new_table(shard, name, **SETTINGS)
    push(shard, [IDS], grads_of("t", ONES), write=EARLIER[0])
    shard.upsert(EARLIER[1], ids_of("u", range(4)), [ONES])
    shard.prepare(StepRef(1, 1), [IDS])
    return shard


def before() -> tuple[dict[str, object], list[object]]:
    with running() as shard:
        return held(begun(shard)), answers(shard, EARLIER)


def after(do: Do) -> dict[str, object]:
    with running() as shard:
        do(begun(shard), WRITE)
        return held(shard)


BEFORE = before()


def check_poisoned(shard: Shard, do: Do, again: bool = True) -> None:
    """Whoever asks hears why."""
    with pytest.raises(ShardPoisoned, match="restart the service"):
        read(shard, "t", [0])
    with pytest.raises(ShardPoisoned):
        shard.export_page("u", 0, 10)
    with pytest.raises(ShardPoisoned):
        shard.create_table(ps.TableConfig(name="other", dim=DIM))
    if again:
        with pytest.raises(ShardPoisoned):
            do(shard, WRITE)
    while (stats := shard.stats())["age_s"]:  # a collection of garbage may take longer than it waits for the engine
        continue
    why = stats["poisoned"]
    assert isinstance(why, str)
    assert why == shard.poisoned


def check_restarted(records: list[bytes], do: Do, done: bool) -> None:
    """A shard that is fed the log is as the poisoned one was before its write, or after it where the log has it; the
    write, sent again, is carried out once."""
    with running() as shard:
        replayed(records, shard)
        if not done:
            shard.prepare(StepRef(1, 1), [IDS])
            assert held(shard) == BEFORE[0]
        assert answers(shard, EARLIER) == BEFORE[1]
        with suppress(ps.TableExists, ps.TableNotFound):
            do(shard, WRITE)
        found, expected = held(shard), after(do)
        if done and do in OWN:
            return  # a shard's own doing: nobody repeats it
        assert found == expected


class Fault:
    """Raises at the n-th line that the engine executes within `Commit._commit`, at most so many frames down."""

    def __init__(self, n: int, depth: int) -> None:
        self.left = n
        self.fired = ""
        self._depth = depth
        self._within = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if event != "call" or self.fired:
            return None
        if frame.f_code is not Commit._commit.__code__ and not 0 < self._within < self._depth:
            return None
        self._within += 1
        return self._line

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "return":
            self._within -= 1
        if event == "line" and not self.fired:
            self.left -= 1
            if self.left < 0:
                self.fired = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise MemoryError("injected")
        return self._line


def walk(kind: str, depth: int) -> list[str]:
    """Injects a fault at each line in turn. Returns the lines."""
    do, lines, restarted = KINDS[kind], [], set()
    while True:
        history = History()
        with running(history) as shard:
            begun(shard)
            acknowledged = list(history.records)
            fault = Fault(len(lines), depth)
            shard.engine.run(lambda: sys.settrace(fault))  # noqa: B023  it is run at once
            try:
                do(shard, WRITE)
                failed = False
            except (ShardPoisoned, MemoryError):
                failed = True
            finally:
                shard.engine.run(lambda: sys.settrace(None))
            assert failed == bool(fault.fired)
            if not failed:
                return lines
            lines.append(fault.fired)
            check_poisoned(shard, do)
        if len(history.records) not in restarted:
            restarted.add(len(history.records))
            check_restarted(history.records, do, done=len(history.records) > len(acknowledged))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_line_between_log_and_record_poisons(kind: str) -> None:
    lines = walk(kind, depth=2)
    assert {"Commit._commit", "Ledger.record", "Commit._count"} <= {line.split(":")[0] for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_line_of_what_these_call_poisons(kind: str) -> None:
    assert len(walk(kind, depth=100)) > 20


def breaking(*_: object, **__: object) -> None:
    raise MemoryError("injected")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seam", [(History, "append"), (Ledger, "record")], ids=["log", "record"])
def test_a_log_or_ledger_that_fails_poisons(kind: str, seam: tuple[type, str], monkeypatch: pytest.MonkeyPatch) -> None:
    history, told = History(), []
    with running(history) as shard:
        begun(shard)
        shard.commit.when_poisoned = lambda: told.append(shard.poisoned)
        monkeypatch.setattr(*seam, breaking)
        with pytest.raises(ShardPoisoned, match="MemoryError: injected"):
            KINDS[kind](shard, WRITE)
        monkeypatch.undo()
        check_poisoned(shard, KINDS[kind])
        assert told == [shard.poisoned], "once"


def test_a_push_that_fails_between_two_tables_says_which_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PlainRows.update
    with running() as shard:
        begun(shard)

        def second_fails(rows: PlainRows, *arguments: Any) -> object:
            if rows is shard.tables["u"].ram.rows:
                raise MemoryError("injected")
            return plain(rows, *arguments)

        monkeypatch.setattr(PlainRows, "update", second_fails)
        with pytest.raises(ShardPoisoned, match=r"middle of table 'u' \(MemoryError.*\[\"table 't'\"\] have all of it"):
            KINDS["push"](shard, WRITE)
        monkeypatch.undo()
        check_poisoned(shard, KINDS["push"])


@pytest.mark.parametrize("kind", REPEATABLE)
@pytest.mark.parametrize("seam", [(Ledger, "_add"), (Commit, "_commit")], ids=["reserve", "commit"])
def test_what_fails_before_the_log_changes_nothing(
    kind: str, seam: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History()
    with running(history) as shard:
        begun(shard)
        monkeypatch.setattr(*seam, breaking)
        with pytest.raises(MemoryError):
            KINDS[kind](shard, WRITE)
        monkeypatch.undo()
        if seam[0] is Commit:
            check_poisoned(shard, KINDS[kind])
            assert len(history.records) == 4
            return
        assert held(shard) == BEFORE[0]
        KINDS[kind](shard, WRITE)
        assert held(shard) == after(KINDS[kind])


def test_rows_that_cannot_be_taken_back_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as shard:
        begun(shard)
        monkeypatch.setattr(Ledger, "_add", breaking)
        monkeypatch.setattr(Reserve, "undo_create", breaking)
        with pytest.raises(MemoryError):
            KINDS["push"](shard, WRITE)
        monkeypatch.undo()
        check_poisoned(shard, KINDS["push"])


def test_a_read_that_waits_while_a_write_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as shard:
        begun(shard)
        target = [TableIds("t", np.arange(4))]
        with shard.look_ahead(target) as ahead:
            monkeypatch.setattr(Ledger, "record", breaking)
            with pytest.raises(ShardPoisoned):
                KINDS["assign"](shard, WRITE)
            monkeypatch.undo()
            with pytest.raises(ShardPoisoned):
                shard.push(a_write(), ahead, [grads_of("t", ONES)])


def test_a_push_that_waits_for_other_ranks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as shard:
        begun(shard)
        with shard.look_ahead([IDS]) as ahead:
            waiting = shard.rounds.join(Round("g", 1, 0, 2), 10, a_write(), ahead, [grads_of("t", ONES)])
            monkeypatch.setattr(Ledger, "record", breaking)
            with pytest.raises(ShardPoisoned):
                KINDS["assign"](shard, WRITE)
            monkeypatch.undo()
            assert waiting.outcome.done(), "no other rank's push will come"
            with pytest.raises(ShardPoisoned, match="restart the service"):
                waiting.outcome.result()
        assert shard.stats()["rounds_waiting"] == 0
