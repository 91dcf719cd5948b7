"""A small program that trains, of which each run can stop after any step and go on in another service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import ps
from ps.nn import Bags, EmbeddingBagCollection, Hold, TopK, TrainingCheckpoints
from ps.wire.formats import WireDtype

IDS = 300
TABLES = [
    ps.TableConfig(name="user", dim=4, optimizer=ps.Adam(lr=0.05), initializer=ps.Uniform(low=-0.1, high=0.1)),
    ps.TableConfig(name="item", dim=4, optimizer=ps.Adagrad(lr=0.05)),
]

WIRE_DTYPES: list[WireDtype] = ["fp16", "int8", ps.ByImportance()]
SPARSIFY = TopK(0.2, reestimate_every=5, sample=32, hold=Hold(0.95, 10))


@dataclass
class Ended:
    """What is there at the end of a run."""

    dense: list[torch.Tensor]
    optimizer: Any
    held: Any
    rows: dict[str, np.ndarray]
    state: dict[str, Any] = field(default_factory=dict)


class Run:
    """Trains with sparsified pushes in few bits, Adam on both sides, dropout and a learning-rate schedule."""

    def __init__(self, address: str, folder: Path, seed: int, *, rewind: bool = False, **options: Any) -> None:
        self.client = ps.connect(address, wire_dtype=WIRE_DTYPES[seed % len(WIRE_DTYPES)])
        self.checkpoints = TrainingCheckpoints(folder, self.client, settings={"seed": seed}, **options)
        self.step = self.checkpoints.restore_rows(rewind=rewind)
        torch.manual_seed(seed)
        self.embeddings = EmbeddingBagCollection(self.client, TABLES, sparsify=SPARSIFY)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [7, 15])
        self.parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "embeddings": self.embeddings,
        }
        self.checkpoints.load(self.parts)
        self.seed = seed

    def train(self, steps: int, save_at: int | None = None) -> None:
        """Goes on until so many steps are made in all."""
        for step in range(self.step + 1, steps + 1):
            sparse, labels_B = batch(self.seed, step)
            self.optimizer.zero_grad()
            logits_B = self.model(self.embeddings(sparse)).squeeze(1)
            nn.functional.binary_cross_entropy_with_logits(logits_B, labels_B).backward()
            self.embeddings.send()
            self.optimizer.step()
            self.embeddings.step()
            self.schedule.step()
            self.step = step
            if step == save_at:
                self.checkpoints.save(step, self.parts)

    def ended(self) -> Ended:
        """Flushes nothing: what is held back must be equal, too."""
        rows = {}
        for table in TABLES:
            pages = [(ids_N, rows_ND, scores_N) for ids_N, rows_ND, scores_N in self.client.export(table.name)]
            ids_N, rows_ND, scores_N = (np.concatenate(parts) for parts in zip(*pages, strict=True))
            order_N = np.argsort(ids_N)
            rows[table.name] = np.column_stack((ids_N, rows_ND, scores_N))[order_N]
        parameters = [parameter.detach().clone() for parameter in self.model.parameters()]
        return Ended(parameters, self.optimizer.state_dict(), self.embeddings.get_extra_state(), rows)


def batch(seed: int, step: int) -> tuple[dict[str, Bags], torch.Tensor]:
    """Every other step names one id only, so that one shard sees its push and the others do not."""
    rng = np.random.default_rng((seed, step))
    ids = 1 if step % 2 else IDS
    sparse = {
        table.name: Bags(torch.from_numpy((ids * rng.random(48) ** 3).astype(np.int64)), torch.arange(0, 48, 3))
        for table in TABLES
    }
    return sparse, torch.from_numpy(rng.integers(0, 2, 16).astype(np.float32))
