"""The ids of a batch by table, each once, and the way back from a feature's ids to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ps.kernels.index.unique import unique
from ps.nn.batch import Bags
from ps.nn.feature import Feature

FeatureOfTable = tuple[str, str]
"""(name of a feature, name of a table). A feature may be looked up in several tables, beside other features in each."""


@dataclass
class UniqueIds:
    """The unique ids of a batch by table, which `dedupe` returns."""

    ids: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Per table, each of its ids once, in the order of first occurrence."""
    counts: dict[str, npt.NDArray[np.uint32]] = field(default_factory=dict)
    """Per table, how often each of its ids occurs in the batch."""
    inverse: dict[FeatureOfTable, torch.Tensor] = field(default_factory=dict)
    """Per feature of a table, int64 [n]: the position of each of the feature's ids among the table's ids."""


def dedupe(bags: Mapping[str, Bags], features: Iterable[Feature]) -> UniqueIds:
    """Returns the unique ids of each table in the features' bags. A feature that is pooled in two ways from one table
    counts once there."""
    names: dict[str, dict[str, None]] = {}
    for feature in features:
        names.setdefault(feature.table, {})[feature.name] = None
    found = UniqueIds()
    for table, of_table in names.items():
        parts = [bags[name].ids.numpy() for name in of_table]
        found.ids[table], inverse_N, found.counts[table] = unique(np.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts])
        for name, part in zip(of_table, np.split(inverse_N, ends[:-1]), strict=True):
            found.inverse[name, table] = torch.from_numpy(part)
    return found
