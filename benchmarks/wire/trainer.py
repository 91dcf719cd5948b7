"""A trainer that counts the bytes of its steps, for `wirebytes`: a DLRM whose embeddings are on a shard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import ps
from benchmarks.wire.clicks import FEATURES
from benchmarks.wire.tcp import tcp_bytes
from ps.nn.batch import Batch
from ps.nn.embedding.collection import EmbeddingBagCollection
from ps.nn.embedding.prepared import PreparedBags
from ps.nn.feature import Feature
from ps.nn.sparsify.thresholds import Sparsify
from worker.data.synthetic import N_DENSE
from worker.models.dlrm import DLRM

WIDTHS = {"default": ((64,), (64,)), "criteo_tb": ((512, 256), (512, 512, 256))}
"""Bottom and top MLP: the trainer's own, and those that the authors of DLRM use for Criteo Terabyte at dim 64
(facebookresearch/dlrm, bench/dlrm_s_criteo_terabyte.sh: 13-512-256-64 and 512-512-256-1)."""


@dataclass(frozen=True)
class Moved:
    """Bytes of one step between a trainer and its shard, both ways, framing included."""

    reads: int
    """Bytes of prepare and pull."""
    push: int

    @property
    def exchange(self) -> int:
        """Bytes of prepare, pull and push."""
        return self.reads + self.push


def table(name: str, dim: int) -> ps.TableConfig:
    """Returns the configuration of the table."""
    return ps.TableConfig(name=name, dim=dim, optimizer=ps.RowwiseAdagrad(lr=0.05))


def model(dim: int, widths: str) -> DLRM:
    """Returns a model that has the same weights at every call."""
    bottom, top = WIDTHS[widths]
    return DLRM(N_DENSE, len(FEATURES), dim, bottom=bottom, top=top, generator=torch.Generator().manual_seed(0))


class CountingTrainer:
    """A trainer that sends in one way. `model` may be wrapped for data-parallel training."""

    def __init__(
        self, client: ps.Client, config: ps.TableConfig, model: nn.Module, sparsify: Sparsify | None = None
    ) -> None:
        self.embeddings = EmbeddingBagCollection(
            client, [config], [Feature(name, config.name) for name in FEATURES], sparsify=sparsify
        )
        self.model = model
        self.table = config.name
        self._optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
        self.port = int(client.address.rpartition(":")[2])
        self.prepared: PreparedBags

    def step(self, batch: Batch) -> Moved:
        """Trains one step. Nothing is prepared ahead, so that bytes belong to their step."""
        before = tcp_bytes(self.port)
        self.prepared = self.embeddings.prepare(batch.sparse)
        pooled_BFD = self.embeddings(self.prepared)
        between = tcp_bytes(self.port)
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(batch.dense, pooled_BFD), batch.labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.embeddings.send()
        self._optimizer.step()
        self.embeddings.step()
        return Moved(between - before, tcp_bytes(self.port) - between)
