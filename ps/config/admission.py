"""Admission: the settings that decide which ids get a row."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ps.values.frozen import Frozen


class Always(Frozen):
    """An id gets a row with its first push."""

    kind: Literal["always"] = "always"


class CountThreshold(Frozen):
    """An id gets a row with the push that brings its occurrences to `min_count`, as a count-min sketch counts them:
    never later, and sometimes too early, because ids share cells. Counts are halved once in the table's
    `half_life_pushes` (10,000 if that is None), so that rare ids do not get a row in the end."""

    kind: Literal["count_threshold"] = "count_threshold"
    min_count: Annotated[int, Field(ge=1, le=65_535)]
    """How many occurrences (`counts`) an id needs."""
    cells: Annotated[int, Field(ge=1 << 12, le=1 << 26)] = 1 << 20
    """Cells of the sketch on each shard, rounded up to a power of two; 8 bytes of RAM each. Choose about as many as
    there are ids in a half-life that are not admitted: with fewer cells, some ids are admitted too early."""


class Probability(Frozen):
    """An id without a row gets one with probability p at each push: frequent ids soon, rare ones seldom."""

    kind: Literal["probability"] = "probability"
    p: Annotated[float, Field(gt=0, le=1)]


Admission = Annotated[Always | CountThreshold | Probability, Field(discriminator="kind")]
