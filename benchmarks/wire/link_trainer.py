"""Runs the trainer of `link` in a process of its own: python -m benchmarks.wire.link_trainer SETTINGS (as JSON)

Trains the same click model twice, with and without compression, each on its own shard. Prints "ready" when all is
filled in; then a line "WAY STEPS" on stdin trains so many steps and is answered with the bytes that crossed the link
meanwhile, both directions, everything counted from the Ethernet header on. The end of stdin ends it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ps
from benchmarks.wire.namespaces import INTERFACE
from ps.arrays import Ids
from ps.nn.batch import Batch
from ps.nn.prefetch import Prefetcher
from ps.nn.sparsify.thresholds import Sparsify, TopK
from worker.data.synthetic import Synthetic
from worker.train.trainer import Trainer

TABLE = "ids"
DEPTH = 2
"""Batches prepared ahead."""
FILL_BATCH = 1 << 16


@dataclass(frozen=True)
class Way:
    """How a trainer talks to its shard."""

    connect: dict[str, Any]
    sparsify: Sparsify | None


WAYS = {
    "plain": Way({}, None),
    "compressed": Way({"wire_dtype": "int8", "compress_ids": True}, TopK(hold=None)),
}


@dataclass(frozen=True)
class Settings:
    """What the trainer is told."""

    addresses: dict[str, str]
    """The address of each way's shard."""
    history: int
    """Samples that came before the training: their ids have rows."""
    ids: int
    """How many ids there are."""
    dim: int
    batch: int
    steps: int
    """How many steps will be asked for, of each way."""

    def to_json(self) -> str:
        """Writes the settings for the command line."""
        return json.dumps(asdict(self))


class _Run:
    """One way in training."""

    def __init__(self, client: ps.Client, way: Way, dim: int, source: Synthetic, given: Sequence[Batch]) -> None:
        table = ps.TableConfig(name=TABLE, dim=dim)
        self._trainer = Trainer(client, source, [table], dense_lr=0.02, seed=0, sparsify=way.sparsify)
        self._batches = iter(Prefetcher(given, self._trainer.embeddings, DEPTH))

    def train(self, steps: int) -> None:
        """Trains whole steps, each until its gradients are applied."""
        for batch in islice(self._batches, steps):
            self._trainer.step(batch)


def main(settings: Settings) -> None:
    """Trains until stdin ends."""
    torch.set_num_threads(1)
    source = Synthetic(rows=1 << 40, total_ids=settings.ids, table=TABLE)
    stream = source.batches(settings.batch)
    known_U = _distinct(islice(stream, settings.history // settings.batch))
    # made beforehand: a loader would make them beside the training
    given = list(islice(stream, settings.steps + DEPTH))
    with ExitStack() as stack:
        runs = {}
        for name, way in WAYS.items():
            client = stack.enter_context(ps.connect(settings.addresses[name], **way.connect))
            runs[name] = _Run(client, way, settings.dim, source, given)
            _fill(client, known_U, settings.dim)
        print("ready", flush=True)
        for line in sys.stdin:
            name, steps = line.split()
            before = _carried()
            runs[name].train(int(steps))
            print(_carried() - before, flush=True)


def _distinct(batches: Iterable[Batch]) -> Ids:
    """Returns the ids of all features of these batches, each once."""
    return np.unique(np.concatenate([bags.ids.numpy() for batch in batches for bags in batch.sparse.values()]))


def _fill(client: ps.Client, ids_U: Ids, dim: int) -> None:
    """Makes rows exist, with gradients of zero."""
    for start in range(0, len(ids_U), FILL_BATCH):
        part_N = ids_U[start : start + FILL_BATCH]
        client.push(TABLE, part_N, np.zeros((len(part_N), dim), np.float32))


def _carried() -> int:
    """Returns the bytes received and sent on the link so far."""
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == INTERFACE:
            numbers = counters.split()
            return int(numbers[0]) + int(numbers[8])
    raise RuntimeError(
        f"there is no interface {INTERFACE}: this process runs in a namespace of benchmarks.wire.namespaces"
    )


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
