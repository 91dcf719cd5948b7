"""Pushes of a round: each waits for those of the other ranks, and the last one to come lets all be applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import cast

from ps.errors import Unavailable
from ps.round import Round
from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import PATIENT, Caller
from ps.shard.commit import Ready
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.operations.push import Body, looked_up
from ps.shard.requests import Gradients, PushResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.writes.parts import Part, Waiting, round_bytes
from ps.shard.writes.whole_round import WholeRound
from ps.shard.writes.write import Result


def join(core: Core, place: Round, wait_s: float, ahead: LookAhead, body: Body, held: int) -> Operation[Waiting]:
    """Returns the part of a push, which has its result if it was applied before, or waits, or has completed its
    round."""
    core.rounds.check(place)
    push = body.push_of(ahead, place)
    yield ENGINE
    part = Part(push, ahead)
    known = core.commit.known([push.entry])
    if known is not None:
        ended = Waiting(place, part, wait_s)
        _answer(core, ended, known[0])
        return ended
    core.commit.log.check()
    tables = looked_up(core, push, ahead)
    push.check(tables)
    waiting = Waiting(place, part, wait_s, max(round_bytes(tables, push.gradients), held))
    complete = core.rounds.join(waiting)
    if complete:
        _apply(core, complete)
    return waiting


def _apply(core: Core, waiting: Sequence[Waiting]) -> None:
    """Applies the parts of all ranks, given in their order: each gets its result, or all of them the error."""
    write, aheads = WholeRound([each.part.push for each in waiting]), [each.part.ahead for each in waiting]

    def each_of(what: Callable[[LookAhead], object]) -> None:
        for ahead in aheads:
            what(ahead)

    def ready() -> Ready:
        write.meet(core.tables)
        check, let_go = partial(each_of, LookAhead.check), partial(each_of, LookAhead.let_go)
        return Ready(write, core.resolve(write.ids), check, let_go, [step for ahead in aheads for step in ahead.steps])

    try:
        results = core.commit.carry_out(write.entries, ready)
    except BaseException as error:  # noqa: BLE001  handed to those who wait
        for each in waiting:
            each.outcome.set_exception(error)
        return
    for each, result in zip(waiting, results, strict=True):
        _answer(core, each, result)


def _answer(core: Core, waiting: Waiting, result: Result) -> None:
    """Gives a part its result when the log has it."""
    pushed = cast(PushResult, result)

    def answer(logged: Future[None]) -> None:
        if (error := logged.exception()) is None:
            waiting.outcome.set_result(pushed)
        else:
            waiting.outcome.set_exception(error)

    core.commit.log.durable(pushed.version).add_done_callback(answer)


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
        ids_digest: int = 0,
    ) -> Waiting:
        """Pushes together with the round's other ranks, whose pushes are summed and make one version. Returns a part
        whose outcome comes when the last rank has joined: a PushResult, or the error of all.

        The part may wait for `wait_s` seconds, and for as long as its caller does. When one of these has ended, call
        `expire` or `leave`: then nothing of this push was applied, and it may be sent again. `held`: bytes of the
        budget that its call holds.
        """
        ahead.wait()
        body = Body(write, gradients, pulled_version, ids_digest)
        return self._core.engine.drive(join(self._core, place, wait_s, ahead, body, held), caller)

    def leave(self, waiting: Waiting) -> None:
        """Takes out a part whose caller waits no more: if it still waits for others, nothing of it is applied. Returns
        at once."""
        with suppress(Unavailable):  # a shard that is closed has ended them all
            self._core.engine.post(lambda: self._core.rounds.leave(waiting))

    def expire(self, waiting: Waiting) -> None:
        """Takes out a part whose time is over, and tells it which ranks are missing. Returns at once."""
        with suppress(Unavailable):
            self._core.engine.post(lambda: self._core.rounds.expire(waiting))

    def end(self) -> None:
        """Tells parts that wait for other ranks that the shard is stopping, when the engine comes to it."""
        self._core.engine.post(self._core.rounds.close)
