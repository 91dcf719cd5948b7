"""What a sparse feature is to the embedding layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ps.errors import InvalidArgument

Pooling = Literal["sum", "mean"]
Pooled = Literal["trainer", "shard", "auto"]


@dataclass(frozen=True)
class Feature:
    """One sparse feature: the table that its ids are looked up in, and how and where the rows of a bag are pooled.

    pooled: "trainer" pulls the rows and pools them here. "shard": each shard sends the sum of its rows of a bag, which
    are added up here, and takes one gradient for each bag. "auto" takes the way with fewer bytes in each step (the
    arithmetic is in `ps.nn.embedding.pooled`). A table is pooled by the shards in a step only if all its features may
    be, and none has per-sample weights in the batch. The results differ only by the order of float32 sums.
    """

    name: str
    table: str
    pooling: Pooling = "sum"
    pooled: Pooled = "trainer"

    def __post_init__(self) -> None:
        for given, known in ((self.pooling, get_args(Pooling)), (self.pooled, get_args(Pooled))):
            if given not in known:
                raise InvalidArgument(f"feature {self.name!r}: {given!r}: choose one of {known}")
