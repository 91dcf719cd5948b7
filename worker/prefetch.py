"""Prefetcher: the ids of batch k+1, k+2, ... are with the shards while batch k trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ps.errors import InvalidArgument
from worker.data.batch import Batch
from worker.embedding import EmbeddingBagCollection, PreparedBags


@dataclass(frozen=True)
class PreparedBatch:
    """A batch whose sparse part is prepared: give `sparse` to the collection."""

    dense: torch.Tensor
    sparse: PreparedBags
    labels: torch.Tensor


class Prefetcher:
    """Iterates over a loader's batches, `depth` of them prepared ahead. Preparing is a hint: it changes no value."""

    def __init__(self, loader: Iterable[Batch], embeddings: EmbeddingBagCollection, depth: int = 2) -> None:
        if depth < 0:
            raise InvalidArgument(f"depth={depth}: how many batches to prepare ahead, 0 or more")
        self._loader = loader
        self._embeddings = embeddings
        self._depth = depth

    def __iter__(self) -> Iterator[PreparedBatch]:
        ahead: deque[PreparedBatch] = deque()
        for batch in self._loader:
            ahead.append(PreparedBatch(batch.dense, self._embeddings.prepare(batch.sparse), batch.labels))
            if len(ahead) > self._depth:
                yield ahead.popleft()
        yield from ahead
