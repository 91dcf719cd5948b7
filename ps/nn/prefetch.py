"""Prefetcher: prepares the ids of batches k+1, k+2, ... while batch k trains, and pulls their rows too, if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch

from ps.errors import InvalidArgument
from ps.nn.batch import Batch
from ps.nn.depth import Depth
from ps.nn.embedding.collection import EmbeddingBagCollection
from ps.nn.embedding.prepared import PreparedBags
from ps.runtime.clock import SYSTEM_CLOCK


@dataclass(frozen=True)
class PreparedBatch:
    """A batch whose sparse part is prepared: give `sparse` to the collection."""

    dense: torch.Tensor
    sparse: PreparedBags
    labels: torch.Tensor


class Prefetcher:
    """Iterates over a loader's batches, `depth` of them prepared ahead. Preparing is a hint: it changes no value.

    `pull_ahead` batches are pulled ahead, which does change values: their rows lack the gradients of at most as many
    steps.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        embeddings: EmbeddingBagCollection,
        depth: int | Literal["auto"] = "auto",
        clock: Callable[[], float] = SYSTEM_CLOCK.monotonic,
        *,
        pull_ahead: int = 0,
    ) -> None:
        """`depth`: "auto" finds it from the times of a prepare and of a step (`ps.nn.depth`); a number fixes it, 0
        prepares no batch ahead. `pull_ahead`: 0 pulls a batch's rows when it is used."""
        if depth != "auto" and (not isinstance(depth, int) or depth < 0):
            raise InvalidArgument(f'depth={depth!r}: give how many batches to prepare ahead, 0 or more, or "auto"')
        if not isinstance(pull_ahead, int) or pull_ahead < 0:
            raise InvalidArgument(f"pull_ahead={pull_ahead!r}: give how many batches to pull ahead, 0 or more")
        embeddings.check_pull_ahead(pull_ahead)
        self._loader = loader
        self._pull_ahead = pull_ahead
        self._embeddings = embeddings
        self._fixed = None if depth == "auto" else depth
        self._auto = Depth()
        self._clock = clock

    @property
    def depth(self) -> int:
        """How many batches are prepared ahead at present."""
        return self._auto.now if self._fixed is None else self._fixed

    def __iter__(self) -> Iterator[PreparedBatch]:
        ahead: deque[PreparedBatch] = deque()
        try:
            last_s = self._clock()
            for batch in self._loader:
                ahead.append(PreparedBatch(batch.dense, self._embeddings.prepare(batch.sparse), batch.labels))
                while len(ahead) > self.depth + self._pull_ahead:
                    ready = self._next(ahead)
                    yield ready
                    now_s = self._clock()
                    self._auto.observe(ready.sparse.step.prepare_s, now_s - last_s)
                    last_s = now_s
            while ahead:
                yield self._next(ahead)
        finally:
            for left in ahead:  # whoever iterates has stopped early
                left.sparse.step.forget()

    def _next(self, ahead: deque[PreparedBatch]) -> PreparedBatch:
        ready = ahead.popleft()
        for batch in islice(ahead, self._pull_ahead):
            self._embeddings.pull_ahead(batch.sparse, self._pull_ahead)
        return ready
