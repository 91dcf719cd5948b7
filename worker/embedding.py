"""EmbeddingBagCollection: the embedding layer of a click model, its rows on the shards.

    sparse features --dedupe per table--> prepare --> pull [U, D] --> pool per feature (torch) --> [B, F, D]
                                                                            |
                                   push [U, D] <-- gradient of the rows <---'  by a hook on backward

Features that share a table share its rows: an id that two features name travels once. What torch differentiates is the
pooling over the rows pulled, so any pooling that torch can express trains the same way. Of a table that the shards pool
(`Feature.pooled`) sums are pulled, one a bag, and it is those that torch differentiates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ps.client.client import Client
from ps.client.step import Step
from ps.config import TableConfig
from ps.errors import InvalidArgument, LengthMismatch
from ps.wire.bags import PooledBags
from worker.ahead import Ahead, PulledRows, Pulls, PullStaleness
from worker.data.batch import Bags
from worker.dedupe import FeatureOfTable, dedupe
from worker.feature import Feature
from worker.kjt import bags_of
from worker.modes import ASYNCHRONOUS, Mode
from worker.pooled import ShardPooling, lengths
from worker.pushes import Pushes
from worker.sum_masks import SumMasks
from worker.thresholds import Sparsify


@dataclass
class PreparedBags:
    """A batch's sparse part on its way: prepared, perhaps pulled, not yet pushed."""

    step: Step
    bags: dict[str, Bags]
    inverse: dict[FeatureOfTable, torch.Tensor]
    """Per feature of a table, where each of its ids is among the table's unique ids."""
    batch_size: int
    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    ids: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Per table, its unique ids."""
    exists: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Per table, which of them had a row when they were pulled; where gradients are sparsified."""
    important: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Per table where that was asked, which were among its most important."""
    positives: dict[str, npt.NDArray[np.uint32]] = field(default_factory=dict)
    """Per table that weighs it, how often each unique id occurs in a positive sample."""
    pooled: dict[str, PooledBags] = field(default_factory=dict)
    """The tables that the shards pool: `rows` has the sums of these."""
    ahead: Ahead | None = None
    """Where its rows are pulled before it is used."""


class EmbeddingBagCollection(nn.Module):
    """Pooled embeddings of several features from a parameter server.

    forward: {feature: Bags} (or a torchrec KeyedJaggedTensor) -> float32 [B, F, D], features in the order given.
    Bags and result are CPU tensors: move the result to the model's device, the gradient finds its way back.
    In training mode, `backward` sends the rows' gradients to the shards; the optimizer runs there. `step()` waits until
    they are applied and raises what went wrong; without it the next `forward` does. In eval mode nothing is sent.
    `forward(sparse, labels)` lets tables whose importance has a weight for `positives` learn which ids those are.
    """

    def __init__(
        self,
        client: Client,
        tables: Sequence[TableConfig],
        features: Sequence[Feature] | None = None,
        *,
        sparsify: Sparsify | Mapping[str, Sparsify] | None = None,
        mask_sums: Sparsify | Mapping[str, Sparsify] | None = None,
        mode: Mode = ASYNCHRONOUS,
    ) -> None:
        """Creates the tables that do not exist. Without `features`, each table is one feature of its name, summed.

        sparsify: `TopK` or `Threshold`, for all tables or by table: only the largest gradients are pushed, the others
        are held back here and added to the next of their row. `flush` sends them; `state_dict` has them.
        mask_sums: the same by elements, of the sums that shards send while training (`Feature.pooled`): the others read
        as 0. What is left out of these nobody makes up for: `worker.sum_masks` says why.

        mode: how the pushes of several trainers go together, `Asynchronous`, `Synchronous` or `Bounded`. The gradients
        of all trainers are summed, so each should be of its part of the mean loss.
        """
        super().__init__()
        self.client = client
        self.features = tuple(features or [Feature(table.name, table.name) for table in tables])
        dims = {table.dim for table in tables}
        if len(dims) != 1:
            raise InvalidArgument(f"tables of dims {sorted(dims)}: one collection has one dim")
        self.dim = dims.pop()
        names = {table.name for table in tables}
        masked = mask_sums if isinstance(mask_sums, Mapping) else {name: mask_sums for name in names if mask_sums}
        if unknown := masked.keys() - names:
            raise InvalidArgument(f"mask_sums names tables {sorted(unknown)} that are not among `tables`")
        missing = {feature.table for feature in self.features} - names
        if missing:
            raise InvalidArgument(f"features use tables {sorted(missing)} that are not among `tables`")
        for table in tables:
            client.create_table(table, exist_ok=True)
        self._weigh_positives = {table.name for table in tables if table.importance.positives}
        self._in_flight: deque[Future[None]] = deque()
        self._pushes = Pushes(client, tables, sparsify)
        self._sum_masks = SumMasks(masked)
        self._masks_sums = bool(masked)
        self._pooling = ShardPooling(client, self.features, self.dim)
        self._sent = 0
        self._pulls = Pulls(client.connection)
        self._pace = mode.start(client)

    def prepare(self, sparse: Mapping[str, Bags] | Any) -> PreparedBags:
        """Names a batch's ids to the shards and returns at once; pass the result to `forward` later."""
        bags = bags_of(sparse)
        missing = [feature.name for feature in self.features if feature.name not in bags]
        if missing:
            raise InvalidArgument(
                f"the batch lacks the features {missing}; it has {sorted(bags)}. One that no sample has: Bags.empty(B)"
            )
        sizes = {feature.name: len(bags[feature.name].offsets) for feature in self.features}
        if len(set(sizes.values())) != 1:
            raise InvalidArgument(
                f"features of different batch sizes in one batch: {sizes}. A KeyedJaggedTensor with a batch size per "
                "feature needs inverse_indices, which say what each sample has"
            )
        found = dedupe(bags, self.features)
        pooled = self._pooling.choose(bags, found.ids, found.inverse)
        step = self.client.prepare(found.ids, counts=found.counts, bags=pooled)
        size = next(iter(sizes.values()))
        return PreparedBags(step, bags, found.inverse, size, ids=found.ids, pooled=pooled)

    def forward(
        self, sparse: PreparedBags | Mapping[str, Bags] | Any, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Float32 [B, F, D]. labels: [B], positive where above 0; they change no value, only what is important."""
        self._raise_failed()
        prepared = sparse if isinstance(sparse, PreparedBags) else self.prepare(sparse)
        if labels is not None and len(labels) != prepared.batch_size:
            raise LengthMismatch(f"{len(labels)} labels for a batch of {prepared.batch_size}: give one a sample")
        if self.training and torch.is_grad_enabled():
            self._begin_step()
        ahead, prepared.ahead = prepared.ahead, None  # if it has failed, the next use pulls again
        pulled = self._pulls.take(ahead, lambda: self._pull(prepared), self._sent, list(self._in_flight))
        prepared.rows, prepared.exists, prepared.important = pulled.rows, pulled.exists, pulled.important
        if labels is not None and self.training:
            prepared.positives = self._count_positives(prepared, labels)
        if self.training and torch.is_grad_enabled():
            leaves = [rows.requires_grad_() for rows in prepared.rows.values()]
            send: Any = _SendGradients.apply  # torch leaves it untyped
            watched = send(lambda grads: self._send(prepared, grads), *leaves)
            prepared.rows = dict(zip(prepared.rows, watched, strict=True))
        pooled = [self._pool(feature, prepared) for feature in self.features]
        return torch.stack(pooled, dim=1)

    @property
    def staleness(self) -> PullStaleness:
        """Of the rows of the batches so far, in this trainer's own pushes."""
        return self._pulls.staleness

    def check_pull_ahead(self, batches: int) -> None:
        """Raises InvalidArgument unless this collection's mode, and its masks, allow to pull so far ahead."""
        self._pace.check_pull_ahead(batches)
        if batches and self._masks_sums:
            raise InvalidArgument(
                f"pull_ahead={batches} with mask_sums: its thresholds go by one pull after the other; choose one"
            )

    def pull_ahead(self, prepared: PreparedBags, batches: int) -> None:
        """Begins to pull a batch's rows in the background, when the pushes sent so far are applied; they are used if at
        most `batches` more are sent until then. What goes wrong is raised at the use."""
        self.check_pull_ahead(batches)
        if prepared.ahead is None:
            prepared.ahead = self._pulls.start(lambda: self._pull(prepared), batches, self._sent, list(self._in_flight))

    def step(self) -> None:
        """Waits until every gradient sent so far is applied; raises the first error of a push."""
        while self._in_flight:
            self._in_flight.popleft().result()

    def flush(self) -> None:
        """Sends the gradients that are held back (`sparsify`), after those on their way; raises what goes wrong."""
        self.step()
        self._pushes.flush()

    def finish(self) -> None:
        """Flushes, and tells the other trainers of the group that this one makes no more steps."""
        self.flush()
        self._pace.finish()

    def get_extra_state(self) -> dict[str, Any]:
        """What is held back, for `state_dict`. Waits for the pushes on their way."""
        self.step()
        return self._pushes.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Of `load_state_dict`."""
        self.step()
        self._pushes.load_state_dict(state)

    def _begin_step(self) -> None:
        if self._pace.in_turn:
            self.step()
        self._pace.begin(self._sent)

    def _pull(self, prepared: PreparedBags) -> PulledRows:
        """On any thread: a batch may be pulled ahead in one mode of the module and used in the other."""
        exists: dict[str, npt.NDArray[np.bool_]] = {}
        important: dict[str, npt.NDArray[np.bool_]] = {}
        masks = self._sum_masks.next(prepared.pooled) if self.training else {}
        if self._pushes.wants_exists:
            asked = {name: s for name, s in self._pushes.important_shares.items() if name not in prepared.pooled}
            pulled = prepared.step.pull_rows(important=asked, mask_below=masks)
            exists = {name: np.asarray(part.exists) for name, part in pulled.items()}
            important = {
                name: np.asarray(part.important) for name, part in pulled.items() if part.important is not None
            }
            rows = {name: part.rows for name, part in pulled.items()}
        else:
            rows = prepared.step.pull(mask_below=masks)
        found = {name: torch.as_tensor(part) for name, part in rows.items()}
        if self.training:
            self._sum_masks.observe(prepared.pooled, found)
        return PulledRows(found, exists, important)

    def _count_positives(self, prepared: PreparedBags, labels: torch.Tensor) -> dict[str, npt.NDArray[np.uint32]]:
        """By table, in the order of its unique ids; of those tables that have a use for it."""
        positive_B = (labels.detach().cpu().reshape(-1) > 0).numpy()
        found: dict[str, npt.NDArray[np.uint32]] = {}
        for (name, table), inverse_N in prepared.inverse.items():
            if table in self._weigh_positives:
                of_positives_N = np.repeat(positive_B, lengths(prepared.bags[name]))
                counts_U = np.bincount(inverse_N.numpy()[of_positives_N], minlength=len(prepared.ids[table]))
                found[table] = found.get(table, 0) + counts_U.astype(np.uint32)
        return found

    def _pool(self, feature: Feature, prepared: PreparedBags) -> torch.Tensor:
        bags, rows_UD = prepared.bags[feature.name], prepared.rows[feature.table]
        if feature.pooling == "mean" and bags.weights is not None:
            raise InvalidArgument(f"feature {feature.name!r}: per-sample weights are for sum pooling, as in torch")
        if feature.table in prepared.pooled:
            return self._pooling.pool(feature, bags, rows_UD)
        if not len(rows_UD):
            return rows_UD.new_zeros((prepared.batch_size, self.dim))
        return nn.functional.embedding_bag(
            prepared.inverse[feature.name, feature.table],
            rows_UD,
            bags.offsets,
            mode=feature.pooling,
            per_sample_weights=bags.weights,
        )

    def _send(self, prepared: PreparedBags, grads: Sequence[torch.Tensor]) -> None:
        by_table = dict(zip(prepared.rows, grads, strict=True))
        push = self._pushes.begin(
            prepared.step,
            by_table,
            prepared.ids,
            prepared.exists,
            prepared.positives,
            prepared.pooled,
            rows=prepared.rows,
            important=prepared.important,
            in_round=self._pace.round(),
            timeout_s=self._pace.patience_s,
        )
        before = self._in_flight[-1] if self._pace.in_turn and self._in_flight else None

        def send() -> None:
            if before is not None:
                before.result()  # a round that is not complete is followed by none
            push()

        self._sent += 1
        self._in_flight.append(self.client.connection.submit(send))

    def _raise_failed(self) -> None:
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft().result()


class _SendGradients(torch.autograd.Function):
    """Identity on the rows of all tables; its backward runs once, when all their gradients are known.

    One function for all tables, and not a hook on each: a table that the loss did not use would never call its hook,
    and the others' gradients would wait for it for ever. Here it gets zeros.
    """

    @staticmethod
    def forward(ctx: Any, send: Callable[[Sequence[torch.Tensor]], None], *rows: torch.Tensor) -> Any:
        ctx.send = send
        return tuple(part.view_as(part) for part in rows)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        ctx.send(grads)
        return None, *(None for _ in grads)
