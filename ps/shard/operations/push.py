"""Pushes: brings the rows up while the gradients are still arriving; then applies the push at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ps.round import Round
from ps.runtime.places import CALLER, ENGINE, Attempt, Operation
from ps.shard.caller import Caller
from ps.shard.commit import Ready
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.reads.pooled import spread
from ps.shard.requests import Gradients, PushResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.steps.steps import Resolved
from ps.shard.writes.push import Push


@dataclass(frozen=True)
class Body:
    """The contents of a push, when its gradients have come."""

    write: WriteId
    gradients: Sequence[Gradients]
    pulled_version: int = 0
    ids_digest: int = 0

    def push_of(self, ahead: LookAhead, place: Round | None = None) -> Push:
        """Returns the write. Its ids are known when its rows have been looked up. Runs on the caller's thread."""
        gradients = spread(ahead.ids, self.gradients)
        return Push(self.write, (), self.gradients, self.pulled_version, self.ids_digest, place, gradients)


def looked_up(core: Core, push: Push, ahead: LookAhead) -> Sequence[Resolved]:
    """Returns the rows of a push, which knows its ids from here on."""
    tables = ahead.tables(core.tables) or core.resolve(ahead.target)
    push.of = [resolved.ids for resolved in tables]
    return tables


def push(core: Core, ahead: LookAhead, caller: Caller) -> Operation[PushResult]:
    """Asks its caller for a `Body`, and applies it all or nothing, once per (worker_id, sequence)."""
    yield ENGINE
    try:
        yield from ahead.rise(core.resolve, core.rise, caller)
        body: Body = yield CALLER
        attempt = Attempt(lambda: body.push_of(ahead))
        yield ENGINE

        def ready() -> Ready:
            push = attempt.result()
            return Ready(push, looked_up(core, push, ahead), ahead.check, ahead.let_go, ahead.steps)

        (result,) = core.commit.carry_out([body.write], ready)
        return cast(PushResult, result)
    finally:
        ahead.let_go()
