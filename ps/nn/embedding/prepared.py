"""A batch's sparse part on its way through a step: prepared, pulled, used by a forward."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ps import PooledBags, Step, Versions
from ps.nn.batch import Bags
from ps.nn.embedding.ahead import Ahead, PulledRows
from ps.nn.embedding.dedupe import FeatureOfTable
from ps.nn.embedding.pooled import lengths
from ps.nn.embedding.table_gradients import TableGradients
from ps.nn.feature import Feature

CONTIGUOUS = torch.contiguous_format


@dataclass(eq=False)
class PreparedBags:
    """A batch that the shards have been told of."""

    step: Step
    bags: dict[str, Bags]
    inverse: dict[FeatureOfTable, torch.Tensor]
    """Per feature of a table, where each of its ids is among the table's unique ids."""
    batch_size: int
    ids: dict[str, npt.NDArray[np.int64]]
    """Per table, its unique ids."""
    counts: dict[str, npt.NDArray[np.uint32]]
    """Per table, how often each occurs."""
    pooled: dict[str, PooledBags] = field(default_factory=dict)
    """The tables that the shards pool: what is pulled are sums of these."""
    ahead: Ahead | None = None
    """The pull of its rows under way, where they are pulled before it is used."""
    pulled: PulledRows | None = None
    """What its last use has pulled."""
    sent: bool = False
    """Whether its step has been taken for a push: what comes later is another push."""

    def is_all_of(self, table: str, part: TableGradients) -> bool:
        """Whether these are the gradients of just what its step has of a table."""
        return part.ids_U is self.ids[table] and part.bags is self.pooled.get(table)


@dataclass(eq=False)
class Forward:
    """One use of a batch in training."""

    prepared: PreparedBags
    pulled: PulledRows
    versions: Versions
    """The versions of the shards when that was pulled."""
    features: Sequence[Feature]
    weigh_positives: Collection[str]
    """The tables whose importance has a use for `positive_B`."""
    positive_B: npt.NDArray[np.bool_] | None = None
    """Which samples are positive; None: nobody has said."""
    used: Collection[FeatureOfTable] = ()
    """The features that the loss of the backward under way uses: those whose part of its gradient is not all 0."""
    _counted: set[FeatureOfTable] = field(default_factory=set)
    """The features whose ids have been counted: once, however many backwards there are."""
    _counts_wait: set[FeatureOfTable] = field(default_factory=set)
    """Those of them whose counts wait for a step, as the gradients do that they go with."""

    def part(self, table: str, grads: torch.Tensor) -> TableGradients:
        """The gradients of one backward, as torch gives them of what was pulled of a table. An id that is in features
        alone which the loss does not use has none."""
        prepared, bags = self.prepared, self.prepared.pooled.get(table)
        # Of sums, autograd may hand on the gradient that the caller's own tensors hold; of rows it makes a new one.
        own = grads.detach().contiguous() if bags is None else grads.detach().clone(memory_format=CONTIGUOUS)
        of_table = dict.fromkeys((feature.name, table) for feature in self.features if feature.table == table)
        used = [feature for feature in of_table if feature in self.used]
        new = [feature for feature in used if feature not in self._counted]
        self._counted.update(new)
        self._counts_wait.update(new)
        part = TableGradients(
            prepared.ids[table],
            prepared.counts[table] if len(new) == len(of_table) else self._occurrences(table, new),
            own,
            None if bags is not None else self.pulled.rows[table],
            self.pulled.exists.get(table),
            self.pulled.important.get(table),
            self._positives(table, new),
            bags,
        )
        if len(used) == len(of_table):
            return part
        return part.by_rows().only(np.flatnonzero(self._occurrences(table, used)))

    def counts_taken(self) -> None:
        """Its gradients go to the shards, and the counts with them."""
        self._counts_wait.clear()

    def counts_dropped(self) -> None:
        """Its gradients were dropped, and the counts with them: the next backward counts again."""
        self._counted -= self._counts_wait
        self._counts_wait.clear()

    def _positives(self, table: str, features: Sequence[FeatureOfTable]) -> npt.NDArray[np.uint32] | None:
        if self.positive_B is None or table not in self.weigh_positives:
            return None
        return self._occurrences(table, features, self.positive_B)

    def _occurrences(
        self, table: str, features: Sequence[FeatureOfTable], in_B: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.uint32]:
        """How often each id of a table is in these features; of some of the samples."""
        counts_U = np.zeros(len(self.prepared.ids[table]), np.int64)
        for feature in features:
            places_N = self.prepared.inverse[feature].numpy()
            if in_B is not None:
                name, _ = feature
                places_N = places_N[np.repeat(in_B, lengths(self.prepared.bags[name]))]
            counts_U += np.bincount(places_N, minlength=len(counts_U))
        return counts_U.astype(np.uint32)
