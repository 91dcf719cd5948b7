"""The last looks at a service, with what went by between them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ps.cli.screens.figures import Flows, Levels, levels, rates, total
from ps.cli.survey import Survey

LENGTH = 600
"""How many looks are kept: more than any screen is wide."""


@dataclass(frozen=True)
class Moment:
    """One look at the service."""

    survey: Survey
    by_shard: Mapping[int, Flows] = field(default_factory=dict)
    """Flows a second since the look before, for the shards that could be compared."""

    @property
    def rates(self) -> Flows | None:
        """Flows a second of all these shards together; None where no shard could be compared."""
        return total(self.by_shard.values()) if self.by_shard else None

    @property
    def levels(self) -> Levels:
        """Bytes and rows of all shards that answer."""
        return levels(self.survey.stats)

    def report(self) -> dict[str, object]:
        """Returns this moment for JSON."""
        return {
            "address": self.survey.address,
            "shards": [
                {
                    "shard_id": seen.info.shard_id,
                    "state": seen.state,
                    "why": seen.why,
                    "rates": self.by_shard.get(seen.info.shard_id),
                }
                for seen in self.survey.shards
            ],
            "rates": self.rates,
            "levels": self.levels.report(),
        }


class History:
    """The moments so far, the newest last; there is at least one."""

    def __init__(self, survey: Survey) -> None:
        self._moments = deque([Moment(survey)], LENGTH)

    def add(self, survey: Survey) -> None:
        """Adds a later look."""
        self._moments.append(Moment(survey, rates(self.last.survey, survey)))

    def __iter__(self) -> Iterator[Moment]:
        return iter(self._moments)

    @property
    def last(self) -> Moment:
        """The newest moment."""
        return self._moments[-1]
