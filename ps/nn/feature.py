"""What a sparse feature is to the embedding layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ps.errors import InvalidArgument

Pooling = Literal["sum", "mean"]
Pooled = Literal["trainer", "shard", "auto"]


@dataclass(frozen=True)
class Feature:
    """One sparse feature: which table its ids are of, and how the rows of a bag become one, and where.

    pooled: by the trainer, which pulls the rows; by the shards, each of which sends the sum of its rows of a bag, to be
    added up here, and takes one gradient a bag; or in each step as the fewer bytes are (the arithmetic is in
    `ps.nn.embedding.pooled`). A table is pooled by the shards in a step only if all its features may be, and none has
    per-sample weights in the batch. Results differ by the order of float32 sums alone.
    """

    name: str
    table: str
    pooling: Pooling = "sum"
    pooled: Pooled = "trainer"

    def __post_init__(self) -> None:
        for given, known in ((self.pooling, get_args(Pooling)), (self.pooled, get_args(Pooled))):
            if given not in known:
                raise InvalidArgument(f"feature {self.name!r}: {given!r}: choose one of {known}")
