"""Compression of the gradients that data-parallel trainers exchange for the dense part of a model.

    model = DistributedDataParallel(model)
    hook = register(model, DenseConfig(density=0.01, layers={"bottom.*": LayerConfig(density=1.0)}))
    ...                                       # train as before
    checkpoint["dense"] = hook.state_dict()   # each rank its own

A rank sends those elements of each layer whose gradient lies above a threshold (Gupta et al., KDD 2021: dynamic
communication thresholding) and adds the others to its next gradient, so nothing is lost, only late.

    hook.py        in DDP: one exchange a step for all buckets, bytes counted
    compressor.py  a rank's state: what goes now, what is held back
    threshold.py   which elements lie above
    payload.py     positions and values as bytes
    config.py      settings, and the arithmetic of 100x

Positions and values never leave the device of the gradients. The code is written for gloo and nccl; the tests run gloo
on CPU only.
"""

from ps.nn.dense.config import DenseConfig, LayerConfig
from ps.nn.dense.hook import DctHook, register
from ps.nn.dense.stats import DenseStats

__all__ = ["DctHook", "DenseConfig", "DenseStats", "LayerConfig", "register"]
