"""The place of one push among those that are applied together."""

from __future__ import annotations

from dataclasses import dataclass

from ps.errors import InvalidArgument

MAX_NAME = 200
MAX_RANKS = 4096


@dataclass(frozen=True)
class Round:
    """The `number`-th step of a group of trainers, of which this is trainer `rank` of `ranks`."""

    group: str
    number: int
    rank: int
    ranks: int

    def __post_init__(self) -> None:
        check_member(self.group, self.rank, self.ranks)
        if not 0 <= self.number < 1 << 63:
            raise InvalidArgument(f"round {self.number}: count the steps of the group from 0 or 1 on")

    def __str__(self) -> str:
        return f"round {self.number} of group {self.group!r}"


def check_member(group: str, rank: int, ranks: int) -> None:
    """Raises InvalidArgument unless these name a member of a group."""
    if not 1 <= len(group) <= MAX_NAME:
        raise InvalidArgument(f"group {group[:MAX_NAME]!r}: give it a name of 1 to {MAX_NAME} characters")
    if not 1 <= ranks <= MAX_RANKS or not 0 <= rank < ranks:
        raise InvalidArgument(f"rank {rank} of {ranks}: a group has 1 to {MAX_RANKS} ranks, counted from 0")
