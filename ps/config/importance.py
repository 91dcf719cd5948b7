"""Importance: the settings that decide which rows stay when not all can."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ps.values.frozen import Frozen, NonNegative


class Importance(Frozen):
    """What makes a row important: the weights of the signals whose decaying sum is the row's score."""

    frequency: NonNegative = 1.0
    """The weight of every push that has the id, however often the id occurs in it."""
    occurrences: NonNegative = 0.0
    """The weight of every occurrence in a batch (`counts`): an id that comes many times at once, and then no more,
    weighs much."""
    positives: NonNegative = 0.0
    """The weight of every occurrence in a positive sample (`positives` of a push)."""
    attribution: NonNegative = 0.0
    """The weight of |gradient x value|, with the value before the update: how much the loss depends on the row
    (first-order Taylor)."""
    recency: NonNegative = 0.0
    """This weight is not added: it is the least score of a row just after a push, so that new rows are not the first to
    be evicted. As the only weight (`frequency=0, recency=1`), rows are ordered exactly by their last push (LRU)."""
    external: NonNegative = 0.0
    """The weight of the scores that `client.report_importance` sends."""

    @property
    def by_recency_alone(self) -> bool:
        """Whether rows are ordered by their last push and nothing else."""
        return not any(weight for signal, weight in self.model_dump().items() if signal != "recency")

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError(
                "every weight is 0, so no row would be more important than another: set one, for example frequency=1"
            )
        return self
