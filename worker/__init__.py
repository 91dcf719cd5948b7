"""What runs inside a trainer. The public names, imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.data.batch import Bags, Batch
    from worker.dlrm import DLRM
    from worker.embedding import EmbeddingBagCollection
    from worker.feature import Feature
    from worker.modes import Asynchronous, Bounded, Group, Synchronous
    from worker.prefetch import Prefetcher
    from worker.sparsify import Hold, Relaxed, Sparsifier, Threshold, TopK
    from worker.tensor_train import TensorTrainEmbeddingBag

__all__ = [
    "DLRM",
    "Asynchronous",
    "Bags",
    "Batch",
    "Bounded",
    "EmbeddingBagCollection",
    "Feature",
    "Group",
    "Hold",
    "Prefetcher",
    "Relaxed",
    "Sparsifier",
    "Synchronous",
    "TensorTrainEmbeddingBag",
    "Threshold",
    "TopK",
]

_HOMES = {
    "Asynchronous": "worker.modes",
    "Bounded": "worker.modes",
    "Group": "worker.modes",
    "Synchronous": "worker.modes",
    "Bags": "worker.data.batch",
    "Batch": "worker.data.batch",
    "DLRM": "worker.dlrm",
    "EmbeddingBagCollection": "worker.embedding",
    "Feature": "worker.feature",
    "Hold": "worker.sparsify",
    "Prefetcher": "worker.prefetch",
    "Relaxed": "worker.sparsify",
    "Sparsifier": "worker.sparsify",
    "TensorTrainEmbeddingBag": "worker.tensor_train",
    "Threshold": "worker.sparsify",
    "TopK": "worker.sparsify",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
