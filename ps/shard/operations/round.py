"""A push of a round: it waits for those of the other ranks. The last one to come has them all applied."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

from ps.errors import Unavailable
from ps.round import Round
from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import PATIENT, Caller
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.operations.push import Body
from ps.shard.reads.pooled import spread
from ps.shard.requests import Gradients, PushResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.steps.steps import Resolved
from ps.shard.writes.checks import check_gradients
from ps.shard.writes.parts import Part, Waiting, round_bytes, summed
from ps.table.push_count import ROUNDS


def join(core: Core, place: Round, wait_s: float, ahead: LookAhead, body: Body, held: int) -> Operation[Waiting]:
    """Returns what has the result of a push that was applied before, or waits, or has completed its round."""
    core.rounds.check(place)
    gradients = spread(ahead.ids, body.gradients)
    yield ENGINE
    part = Part(body.write, ahead, gradients, body.pulled_version)
    known = core.commit.known(body.write)
    if known is not None:
        return Waiting.ended(place, part, replace(cast(PushResult, known), repeated=True))
    tables = ahead.tables(core.tables) or core.resolve(ahead.target)
    check_gradients(tables, gradients)
    nbytes = max(round_bytes(tables, gradients), held)
    waiting = Waiting(place, part, [resolved.ids for resolved in tables], wait_s, nbytes)
    complete = core.rounds.join(waiting)
    if complete:
        _apply(core, complete)
    return waiting


def _apply(core: Core, waiting: Sequence[Waiting]) -> None:
    """Applies the parts of all ranks, given in their order: each gets its result, or all of them the error."""
    try:
        tables = [core.table(ids.table) for ids in waiting[0].ids]
        together = [summed(table, number, waiting) for number, table in enumerate(tables)]
        resolved = [Resolved(table, ids) for table, (ids, _) in zip(tables, together, strict=True)]
        sums, parts = [sums for _, sums in together], [each.part for each in waiting]
        results = core.commit.push(resolved, sums, parts, ROUNDS)
    except BaseException as error:  # noqa: BLE001  handed to those who wait
        for each in waiting:
            each.outcome.set_exception(error)
        return
    for each, result in zip(waiting, results, strict=True):
        each.outcome.set_result(result)


class RoundCalls:
    """The rounds of one shard, for its callers. Threads: any."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.give_way = core.rounds_give_way

    def join(
        self,
        place: Round,
        wait_s: float,
        write: WriteId,
        ahead: LookAhead,
        gradients: Sequence[Gradients],
        pulled_version: int = 0,
        caller: Caller = PATIENT,
        held: int = 0,
    ) -> Waiting:
        """Pushes together with the round's other ranks, whose pushes are summed and make one version. The
        outcome of what is returned comes when the last of them has joined: a PushResult, or the error of all.

        It may wait for `wait_s`, and for as long as its caller does: who knows that these have ended calls `expire` or
        `leave`. Then nothing of this push was applied, and it may be sent again. `held`: bytes of the budget that
        its call holds.
        """
        ahead.wait()
        body = Body(write, gradients, pulled_version)
        return self._core.engine.drive(join(self._core, place, wait_s, ahead, body, held), caller)

    def leave(self, waiting: Waiting) -> None:
        """Nobody waits for it any more: if it still waits for others, nothing of it is applied. Returns at once."""
        with suppress(Unavailable):  # a shard that is closed has ended them all
            self._core.engine.post(lambda: self._core.rounds.leave(waiting))

    def expire(self, waiting: Waiting) -> None:
        """The part's time is over: it leaves, and is told which ranks are missing. Returns at once."""
        with suppress(Unavailable):
            self._core.engine.post(lambda: self._core.rounds.expire(waiting))

    def end(self) -> None:
        """Whoever waits for other ranks hears that the shard is stopping, when the engine comes to it."""
        self._core.engine.post(self._core.rounds.close)
