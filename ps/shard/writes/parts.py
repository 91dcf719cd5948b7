"""The parts of a round, one of each rank, and which of them go together or give way."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ps.errors import InvalidArgument, LengthMismatch, PsError, SequenceConflict, Unavailable
from ps.round import Round
from ps.shard.requests import Gradients, PushResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.steps.steps import Resolved
from ps.shard.writes.push import Push


@dataclass(frozen=True, eq=False)
class Part:
    """The push of one call, with the rows that are held for it."""

    push: Push
    ahead: LookAhead


@dataclass(frozen=True, eq=False)
class Waiting:
    """One rank's part of a round."""

    place: Round
    part: Part
    wait_s: float
    nbytes: int = 0
    """The bytes that it takes of the budget of messages, with its share of the sums."""
    outcome: Future[PushResult] = field(default_factory=Future)


def check_fits(waiting: Waiting, other: Waiting) -> None:
    """Raises InvalidArgument or LengthMismatch unless the two may be parts of one round."""
    place, there = waiting.place, other.place
    if place.ranks != there.ranks:
        raise InvalidArgument(
            f"{place}: rank {place.rank} says that there are {place.ranks} ranks, rank {there.rank} {there.ranks}"
        )
    if place.number != there.number:
        raise InvalidArgument(
            f"{place}: rank {there.rank} waits in round {there.number}. Every rank makes every step of its group, in "
            f"order: a trainer that was started again goes on with round {there.number}; a new run needs "
            "a group name of its own"
        )
    mine, theirs = ([ids.table for ids in each.part.push.of] for each in (waiting, other))
    if mine != theirs:
        raise LengthMismatch(f"{place}: rank {place.rank} pushes tables {mine}, rank {there.rank} {theirs}")


def taken_by(waiting: Waiting, earlier: Waiting) -> PsError:
    """Returns the error for the earlier part of a rank. Raises SequenceConflict if the later one is at fault."""
    place, mine, theirs = waiting.place, waiting.part.push.entry, earlier.part.push.entry
    if (mine.worker_id, mine.sequence) != (theirs.worker_id, theirs.sequence):
        return SequenceConflict(
            f"{earlier.place}: another push of rank {place.rank}, of worker {mine.worker_id:#x}, has taken the place "
            f"of this one, of worker {theirs.worker_id:#x}, of which nothing was applied. A trainer that was started "
            "again takes its place so; two that run at once need a rank each"
        )
    if mine.digest != theirs.digest:
        raise SequenceConflict(
            f"{place}: write {mine.sequence} of worker {mine.worker_id:#x} waits there with another body: a sequence "
            "number belongs to one write"
        )
    return Unavailable(f"{place}: rank {place.rank} has sent this push again")


def round_bytes(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> int:
    """Returns what one part takes while it waits: its gradients, and the most that it adds to the sums, float32."""
    blocks = sum(block.nbytes for each in gradients for block in each.blocks)
    return blocks + 4 * sum(len(resolved.ids.ids_N) * resolved.table.config.dim for resolved in tables)
