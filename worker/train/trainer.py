"""One trainer: it has the dense part of the model and its optimizer; the embeddings are on the shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ps import Client
from ps.config import TableConfig
from ps.nn.checkpoint.parts import Part
from ps.nn.dense import DctHook, DenseConfig, register
from ps.nn.embedding.collection import EmbeddingBagCollection
from ps.nn.feature import Feature, Pooled
from ps.nn.modes import ASYNCHRONOUS, Mode
from ps.nn.prefetch import PreparedBatch
from ps.nn.sparsify.thresholds import Sparsify
from worker.data.source import Source
from worker.models.dlrm import DLRM
from worker.report.metrics import Progressive

FLOAT_BYTES = 4


class Trainer:
    """The model, its dense optimizer and the metrics of one trainer."""

    def __init__(
        self,
        client: Client,
        source: Source,
        tables: Sequence[TableConfig],
        dense_lr: float,
        seed: int,
        *,
        sparsify: Sparsify | Mapping[str, Sparsify] | None = None,
        mask_sums: Sparsify | Mapping[str, Sparsify] | None = None,
        pooled: Pooled = "trainer",
        mode: Mode = ASYNCHRONOUS,
    ) -> None:
        """pooled: where the bags of every feature are summed, as `Feature` says. sparsify, mask_sums, mode: as
        `EmbeddingBagCollection` has them."""
        torch.manual_seed(seed)
        features = [Feature(feature.name, feature.table, pooled=pooled) for feature in source.features]
        self.embeddings = EmbeddingBagCollection(
            client, tables, features, sparsify=sparsify, mask_sums=mask_sums, mode=mode
        )
        self.dense = DLRM(source.n_dense, len(features), tables[0].dim)
        self.model: nn.Module = self.dense
        self.hook: DctHook | None = None
        self.ranks = 1
        self.optimizer = torch.optim.Adagrad(self.dense.parameters(), lr=dense_lr)
        self.metrics = Progressive()
        self.whole_gradient_bytes = 0
        """The bytes that the gradients of all trained rows take in float32."""

    def share_dense(self, config: DenseConfig) -> None:
        """From now on trains the dense part in step with the other ranks of the default process group.

        Gradients are then of the mean loss over the batches of all ranks. DDP takes the mean of the dense part's
        gradients. Those of the embeddings are summed on the shards, so each rank sends its part of the mean.
        """
        ddp = nn.parallel.DistributedDataParallel
        # Its buffers never change: DDP would send them in every step. torch deprecates the option and has this instead.
        buffers = [name for name, _ in self.dense.named_buffers()]
        ddp._set_params_and_buffers_to_ignore_for_model(self.dense, buffers)  # type: ignore[no-untyped-call]
        self.model = model = ddp(self.dense)
        self.hook = register(model, config)
        self.ranks = torch.distributed.get_world_size()

    def step(self, batch: PreparedBatch) -> float:
        """Predicts, then trains, and returns the loss. With a shared dense part, every rank must make as many steps."""
        pooled_BFD = self.embeddings(batch.sparse, batch.labels)
        if self.ranks > 1:
            pooled_BFD.register_hook(lambda grads_BFD: grads_BFD / self.ranks)
        logits = self.model(batch.dense, pooled_BFD)
        self._observe(logits, batch)
        loss = _loss(logits, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.embeddings.send()  # on its way while the dense part makes its step
        self.optimizer.step()
        self.embeddings.step()
        rows = sum(len(ids_U) for ids_U in batch.sparse.ids.values())
        self.whole_gradient_bytes += FLOAT_BYTES * self.embeddings.dim * rows
        return float(loss.detach())

    def parts(self) -> dict[str, Part]:
        """Returns what a checkpoint saves of this trainer."""
        parts: dict[str, Part] = {
            "model": self.dense,
            "optimizer": self.optimizer,
            "embeddings": self.embeddings,
            "metrics": self.metrics,
        }
        return parts if self.hook is None else {**parts, "exchange": self.hook}

    @torch.no_grad()
    def predict(self, batch: PreparedBatch) -> float:
        """Predicts without training, and returns the loss. No other rank is waited for."""
        logits = self.dense(batch.dense, self.embeddings(batch.sparse))
        self._observe(logits, batch)
        return float(_loss(logits, batch))

    def finish(self) -> None:
        """Trains on the gradients that have been held back, on this rank and the others: nothing is lost. Ranks send
        theirs one after the other, because rows depend on the order in which they come."""
        for rank in range(self.ranks):
            if self.ranks == 1 or rank == torch.distributed.get_rank():
                self.embeddings.finish()
            if self.ranks > 1:
                torch.distributed.barrier()
        if self.hook is not None:
            self.hook.flush()
            self.optimizer.step()

    def dense_digest(self) -> str:
        """Returns the SHA-256 of the dense parameters' bytes, which is equal if they are equal bit for bit."""
        flat = nn.utils.parameters_to_vector(self.dense.parameters()).detach()
        return hashlib.sha256(flat.numpy().tobytes()).hexdigest()

    def _observe(self, logits: torch.Tensor, batch: PreparedBatch) -> None:
        self.metrics.add(torch.sigmoid(logits.detach()).numpy(), batch.labels.numpy())


def _loss(logits: torch.Tensor, batch: PreparedBatch) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
