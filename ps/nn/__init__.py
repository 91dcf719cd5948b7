"""The torch side of the SDK, which a trainer imports. Its public names are imported when they are first used.

It needs torch (the extra `torch` of embedding-ps); the service and `ps.connect` work without it.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("torch") is None:
    raise ImportError("ps.nn needs torch, which is not installed: pip install 'embedding-ps[torch]', or torch itself")

if TYPE_CHECKING:
    from ps.nn.batch import Bags, Batch
    from ps.nn.checkpoint.checkpoints import TrainingCheckpoints
    from ps.nn.embedding.collection import EmbeddingBagCollection
    from ps.nn.feature import Feature
    from ps.nn.modes import Asynchronous, Bounded, Group, Synchronous
    from ps.nn.prefetch import Prefetcher
    from ps.nn.sparsify.sparsifiers import Hold, Relaxed, Sparsifier, Threshold, TopK
    from ps.nn.tensor_train.bag import TensorTrainEmbeddingBag

__all__ = [
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
    "TrainingCheckpoints",
]

_HOMES = {
    "Asynchronous": "ps.nn.modes",
    "Bags": "ps.nn.batch",
    "Batch": "ps.nn.batch",
    "Bounded": "ps.nn.modes",
    "EmbeddingBagCollection": "ps.nn.embedding.collection",
    "Feature": "ps.nn.feature",
    "Group": "ps.nn.modes",
    "Hold": "ps.nn.sparsify.sparsifiers",
    "Prefetcher": "ps.nn.prefetch",
    "Relaxed": "ps.nn.sparsify.sparsifiers",
    "Sparsifier": "ps.nn.sparsify.sparsifiers",
    "Synchronous": "ps.nn.modes",
    "TensorTrainEmbeddingBag": "ps.nn.tensor_train.bag",
    "Threshold": "ps.nn.sparsify.sparsifiers",
    "TopK": "ps.nn.sparsify.sparsifiers",
    "TrainingCheckpoints": "ps.nn.checkpoint.checkpoints",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ps.nn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
