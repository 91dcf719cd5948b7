"""A push: its rows come up while its gradients are still arriving; then it is applied at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from ps.runtime.places import CALLER, ENGINE, Attempt, Operation
from ps.shard.caller import Caller
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.reads.pooled import spread
from ps.shard.requests import Gradients, PushResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.writes.checks import check_gradients
from ps.shard.writes.parts import Part


@dataclass(frozen=True)
class Body:
    """What a push says when its gradients have come."""

    write: WriteId
    gradients: Sequence[Gradients]
    pulled_version: int = 0


def push(core: Core, ahead: LookAhead, caller: Caller) -> Operation[PushResult]:
    """Asks its caller for a `Body`, and applies it all or nothing, once per (worker_id, sequence)."""
    yield ENGINE
    try:
        yield from ahead.rise(core.resolve, core.rise, caller)
        body: Body = yield CALLER
        attempt = Attempt(lambda: spread(ahead.ids, body.gradients))
        yield ENGINE
        known = core.commit.known(body.write)
        if known is not None:
            return replace(cast(PushResult, known), repeated=True)
        gradients = attempt.result()
        tables = ahead.tables(core.tables) or core.resolve(ahead.target)
        check_gradients(tables, gradients)
        part = Part(body.write, ahead, gradients, body.pulled_version)
        (result,) = core.commit.push(tables, gradients, [part], body.write.worker_id)
        return result
    finally:
        ahead.let_go()
