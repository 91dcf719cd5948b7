"""A batch's sparse part on its way through a step: prepared, pulled, used by a forward."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ps import Client, PooledBags, Step, Versions
from ps.errors import InvalidArgument
from ps.nn.batch import Bags
from ps.nn.embedding.ahead import Ahead, PulledRows
from ps.nn.embedding.dedupe import FeatureOfTable, dedupe
from ps.nn.embedding.kjt import bags_of
from ps.nn.embedding.pooled import BagPooling, lengths
from ps.nn.embedding.table_gradients import TableGradients
from ps.nn.feature import Feature

CONTIGUOUS = torch.contiguous_format


@dataclass(eq=False)
class PreparedBags:
    """A batch that `prepare` has sent to the shards."""

    step: Step
    bags: dict[str, Bags]
    inverse: dict[FeatureOfTable, torch.Tensor]
    """Per feature of a table, the position of each of its ids among the table's unique ids."""
    batch_size: int
    ids: dict[str, npt.NDArray[np.int64]]
    """Per table, its unique ids."""
    counts: dict[str, npt.NDArray[np.uint32]]
    """Per table, how often each unique id occurs in the batch."""
    pooled: dict[str, PooledBags] = field(default_factory=dict)
    """The tables that the shards pool: for these, sums are pulled and not rows."""
    ahead: Ahead | None = None
    """The pull under way, if the batch's rows are pulled before it is used."""
    pulled: PulledRows | None = None
    """The rows that the last use of the batch has pulled."""
    sent: bool = False
    """Whether the batch's step handle was used for a push; gradients that come later are pushed by ids."""

    def is_all_of(self, table: str, part: TableGradients) -> bool:
        """Returns whether these gradients have exactly the rows that the prepared step has of a table."""
        return part.ids_U is self.ids[table] and part.bags is self.pooled.get(table)


def prepare_bags(
    client: Client, features: Sequence[Feature], pooling: BagPooling, sparse: Mapping[str, Bags] | Any
) -> PreparedBags:
    """Names a batch's ids to the shards and returns at once. Raises InvalidArgument where the batch lacks a feature, or
    its features have different batch sizes."""
    bags = bags_of(sparse)
    missing = [feature.name for feature in features if feature.name not in bags]
    if missing:
        raise InvalidArgument(
            f"the batch lacks the features {missing}; it has {sorted(bags)}. "
            "For one that no sample has give Bags.empty(batch_size)"
        )
    sizes = {feature.name: len(bags[feature.name].offsets) for feature in features}
    if len(set(sizes.values())) != 1:
        raise InvalidArgument(
            f"features of different batch sizes in one batch: {sizes}. A KeyedJaggedTensor with a batch size per "
            "feature needs inverse_indices, which say what each sample has"
        )
    found = dedupe(bags, features)
    pooled = pooling.choose(bags, found.ids, found.inverse)
    step = client.prepare(found.ids, counts=found.counts, bags=pooled)
    return PreparedBags(step, bags, found.inverse, next(iter(sizes.values())), found.ids, found.counts, pooled)


@dataclass(eq=False)
class Forward:
    """One use of a batch in training: a forward pass, and the backwards that follow."""

    prepared: PreparedBags
    pulled: PulledRows
    versions: Versions
    """The versions of the shards when the rows were pulled."""
    features: Sequence[Feature]
    weigh_positives: Collection[str]
    """The tables whose importance has a weight for positive samples."""
    positive_B: npt.NDArray[np.bool_] | None = None
    """Which samples are positive; None: no labels were given."""
    used: Collection[FeatureOfTable] = ()
    """The features that the loss of the present backward uses: those whose part of its gradient is not all 0."""
    _counted: set[FeatureOfTable] = field(default_factory=set)
    """The features whose ids have been counted. They are counted once, however many backwards there are."""
    _counts_wait: set[FeatureOfTable] = field(default_factory=set)
    """The features whose counts wait for a step, together with their gradients."""

    def part(self, table: str, grads: torch.Tensor) -> TableGradients:
        """Returns one table's gradients of one backward, from the gradient that torch gives for the table's rows or
        sums. An id that occurs only in features which the loss does not use has none."""
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
        """Notes that the forward's gradients go to the shards, and its counts with them."""
        self._counts_wait.clear()

    def counts_dropped(self) -> None:
        """Notes that the forward's gradients were dropped, and its counts with them: the next backward counts again."""
        self._counted -= self._counts_wait
        self._counts_wait.clear()

    def _positives(self, table: str, features: Sequence[FeatureOfTable]) -> npt.NDArray[np.uint32] | None:
        if self.positive_B is None or table not in self.weigh_positives:
            return None
        return self._occurrences(table, features, self.positive_B)

    def _occurrences(
        self, table: str, features: Sequence[FeatureOfTable], in_B: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.uint32]:
        """Returns how often each id of a table occurs in these features, in all samples or in those given."""
        counts_U = np.zeros(len(self.prepared.ids[table]), np.int64)
        for feature in features:
            places_N = self.prepared.inverse[feature].numpy()
            if in_B is not None:
                name, _ = feature
                places_N = places_N[np.repeat(in_B, lengths(self.prepared.bags[name]))]
            counts_U += np.bincount(places_N, minlength=len(counts_U))
        return counts_U.astype(np.uint32)
