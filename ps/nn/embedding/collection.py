"""EmbeddingBagCollection: the embedding layer of a click model, its rows on the shards.

    sparse features --dedupe per table--> prepare --> pull [U, D] --> pool per feature (torch) --> [B, F, D]
                                                                            |
                                         gradients of rows, [U, D], wait <--'  backward
                            step: pushes, once, what all backwards have added

Features that share a table share its rows: an id that two features name travels once. Torch differentiates the pooling
over the rows that were pulled, so any pooling that torch can express trains the same way. From a table that the shards
pool (`Feature.pooled`) one sum for each bag is pulled, and torch differentiates what is made of these sums.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ps import Client
from ps.config import TableConfig
from ps.errors import InvalidArgument, LengthMismatch
from ps.nn.batch import Bags
from ps.nn.embedding.ahead import Pulls, PullStaleness
from ps.nn.embedding.autograd import Stack
from ps.nn.embedding.gradients import WaitingGradients
from ps.nn.embedding.pooled import BagPooling
from ps.nn.embedding.prepared import Forward, PreparedBags, prepare_bags
from ps.nn.embedding.pulling import Puller
from ps.nn.embedding.pushes import Pushes
from ps.nn.embedding.sending import Sender
from ps.nn.embedding.training import RowTraining
from ps.nn.feature import Feature
from ps.nn.modes import ASYNCHRONOUS, Mode
from ps.nn.sparsify.sum_masks import SumMasks
from ps.nn.sparsify.thresholds import Sparsify


class EmbeddingBagCollection(RowTraining):
    """Pooled embeddings of several features from a parameter server.

    forward: {feature: Bags} (or a torchrec KeyedJaggedTensor) -> float32 [B, F, D], features in the order given. Bags
    and result are CPU tensors: move the result to the model's device; torch moves the gradient back.

    It is trained as torch's modules are, and `step` takes the place of an optimizer's. `backward` adds to the gradients
    that wait here, any number of times, for any number of forwards. `step()` pushes their sums, once, waits until the
    shards' optimizers have applied them, and raises the error if one failed. `send()` does not wait: call it before the
    dense optimizer's step, and the two go on side by side. `zero_grad()` drops what waits. A table that no loss has
    used is left alone.

    In eval mode, under `torch.no_grad()`, and while the rows are frozen (`requires_grad_(False)`, also of the model) no
    gradients wait and the result requires no grad. With `forward(sparse, labels)`, tables whose importance has a weight
    for `positives` learn which ids occur in positive samples.

    The rows are no parameters: there may be more of them than fit into the trainer. `anchor`, a parameter without
    elements, stands for them where torch asks a module for its parameters; `row_parameters` and `optimizer` are for
    clipping and for GradScaler. `copy.deepcopy` shares the client and the tables: a copy reads the same rows, and
    trains them where it is trained. Gradients that wait or are held back stay with the original. A collection cannot be
    pickled: save its `state_dict`.
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
        are held back here and added to the next gradient of their row. `flush` sends them; `state_dict` has them.
        mask_sums: the same by elements, of the sums that shards send while training (`Feature.pooled`): the others read
        as 0. There is no error feedback for what is left out: `ps.nn.sparsify.sum_masks` says why.

        mode: how the pushes of several trainers go together, `Asynchronous`, `Synchronous` or `Bounded`. The gradients
        of all trainers are summed, so each should be of its part of the mean loss.
        """
        super().__init__()
        self.client = client
        self.features = tuple(features or [Feature(table.name, table.name) for table in tables])
        dims = {table.dim for table in tables}
        if len(dims) != 1:
            raise InvalidArgument(f"tables of dims {sorted(dims)}: one collection has one dim; make one for each dim")
        self.dim = dims.pop()
        names = {table.name for table in tables}
        masked = mask_sums if isinstance(mask_sums, Mapping) else {name: mask_sums for name in names if mask_sums}
        if unknown := masked.keys() - names:
            raise InvalidArgument(f"mask_sums names tables {sorted(unknown)} that are not among `tables`")
        if missing := {feature.table for feature in self.features} - names:
            raise InvalidArgument(f"features use tables {sorted(missing)} that are not among `tables`: add them there")
        for table in tables:
            client.create_table(table, exist_ok=True)
        self.anchor = nn.Parameter(torch.empty(0))
        self._tables = tuple(tables)
        self._sparsify = sparsify
        self._masked = masked
        self._weigh_positives = {table.name for table in tables if table.importance.positives}
        self._pooling = BagPooling(client, self.features, self.dim)
        self._pace = mode.start(client)
        self._begin()

    def _begin(self) -> None:
        """Makes what this collection does not share with a copy: nothing is pulled, waits or is held back yet."""
        used = dict.fromkeys((feature.table for feature in self.features), self.dim)
        self._pulls = Pulls(self.client)
        self._pushes = Pushes(self.client, self._tables, self._sparsify)
        self._puller = Puller(self._pushes, SumMasks(self._masked))
        self._sender = Sender(self.client, used, self._pushes, self._pace)
        self._waiting = WaitingGradients(used, self.anchor)
        self._may_be_scaled = True
        weakref.finalize(self, self._waiting.tell_lost)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def prepare(self, sparse: Mapping[str, Bags] | Any) -> PreparedBags:
        """Names a batch's ids to the shards and returns at once; pass the result to `forward` later."""
        return prepare_bags(self.client, self.features, self._pooling, sparse)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, sparse: PreparedBags | Mapping[str, Bags] | Any, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the pooled rows, float32 [B, F, D]. labels: [B], positive where above 0; they change no value, only
        the importance of rows."""
        self._sender.raise_failed()
        prepared = sparse if isinstance(sparse, PreparedBags) else self.prepare(sparse)
        if labels is not None and len(labels) != prepared.batch_size:
            raise LengthMismatch(f"{len(labels)} labels for a batch of {prepared.batch_size}: give one for each sample")
        trains = self.training and torch.is_grad_enabled() and self.anchor.requires_grad
        if trains:
            self._sender.begin_step()
        ahead, prepared.ahead = prepared.ahead, None  # if it has failed, the next use pulls again
        pull = partial(self._puller.pull, prepared, self.training)
        pulled = self._pulls.take(ahead, pull, self._sender.sent, self._sender.on_their_way)
        prepared.pulled, rows = pulled, pulled.rows
        if trains:
            positive_B = None if labels is None else (labels.detach().cpu().reshape(-1) > 0).numpy()
            forward = Forward(
                prepared, pulled, prepared.step.versions, self.features, self._weigh_positives, positive_B
            )
            rows = self._waiting.watch(forward)
        else:
            forward = None
            prepared.step.forget()  # no push will follow
        pooled = [self._pooling.pool(feature, prepared, rows[feature.table]) for feature in self.features]
        stack: Any = Stack.apply  # torch leaves it untyped
        result: torch.Tensor = stack(forward, *pooled)
        return result

    @property
    def staleness(self) -> PullStaleness:
        """Counts how many of this trainer's own pushes were missing in the rows of its batches."""
        return self._pulls.staleness

    def check_pull_ahead(self, batches: int) -> None:
        """Raises InvalidArgument unless this collection's mode and its masks allow rows to be pulled `batches`
        ahead."""
        self._pace.check_pull_ahead(batches)
        if batches and self._masked:
            raise InvalidArgument(
                f"pull_ahead={batches} with mask_sums, which learns its thresholds from pulls in their order: "
                "use one of the two"
            )

    def pull_ahead(self, prepared: PreparedBags, batches: int) -> None:
        """Begins to pull a batch's rows in the background, when the pushes sent so far are applied. The rows are used
        if at most `batches` more pushes are sent until then. An error is raised when the rows are used."""
        self.check_pull_ahead(batches)
        if prepared.ahead is None:
            pull = partial(self._puller.pull, prepared, self.training)
            prepared.ahead = self._pulls.start(pull, batches, self._sender.sent, self._sender.on_their_way)

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddingBagCollection:
        """Shares the client, the tables and the place in a group; see the class."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        own = ("_pulls", "_puller", "_pushes", "_sender", "_waiting", "optimizer")
        shared = ("client", "features", "_tables", "_sparsify", "_masked", "_pooling", "_pace")
        for name, value in self.__dict__.items():
            if name not in own:
                made.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        made._begin()
        return made

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            "an EmbeddingBagCollection has a connection to its shards, which hold the rows, and cannot be pickled or "
            "saved whole: save its state_dict(), and make another with its tables where that is loaded"
        )
