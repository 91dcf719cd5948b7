"""Runs one of two data-parallel trainers that share a shard, in a process of its own, for `wirebytes`.

python -m benchmarks.wire.rank RANK MEETING, a file that does not exist: where the ranks find each other. Prints
"ready"; then a line on stdin with the fields of `Settings`, as JSON, is trained and answered with bytes a step; its end
ends it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import ps
from benchmarks.wire.clicks import Clicks
from benchmarks.wire.tcp import tcp_bytes
from benchmarks.wire.trainer import CountingTrainer, model, table
from ps.nn.dense import DctHook, DenseConfig, DenseStats, register
from ps.nn.dense.exchange import SIZE_BYTES
from ps.nn.dense.payload import HEADER_BYTES
from ps.nn.sparsify.thresholds import TopK

RANKS = 2


@dataclass(frozen=True)
class Settings:
    """What a rank is told."""

    address: str
    """The shard's address."""
    table: str
    way: Literal["dense", "compressed"]
    widths: str
    """The widths of the model's layers, a name in `benchmarks.wire.trainer.WIDTHS`."""
    total_ids: int
    batch: int
    dim: int
    warm_up: int
    steps: int


def connect(settings: Settings) -> ps.Client:
    """Connects a client that sends in this way."""
    if settings.way == "dense":
        return ps.connect(settings.address)
    return ps.connect(settings.address, wire_dtype="int8", compress_ids=True)


def train(rank: int, settings: Settings, client: ps.Client) -> dict[str, float]:
    """Trains, and returns means over the steps after the warm-up."""
    clicks = Clicks(settings.total_ids, settings.batch)
    # DLRM's one buffer is a constant: to broadcast it is 2.8 KB a step for nothing
    wrapped = DistributedDataParallel(model(settings.dim, settings.widths), forward_sync_buffers=False)
    compressed = settings.way == "compressed"
    hook = register(wrapped) if compressed else None
    sparsify = TopK(hold=None) if compressed else None
    trainer = CountingTrainer(client, table(settings.table, settings.dim), wrapped, sparsify)
    for step in range(settings.warm_up):
        trainer.step(clicks.batch(RANKS * step + rank))
    dist.barrier()
    before, counted = _sockets(trainer.port), hook.stats() if hook else None
    for step in range(settings.warm_up, settings.warm_up + settings.steps):
        trainer.step(clicks.batch(RANKS * step + rank))
    dist.barrier()  # the other may be a step behind, and its bytes are this one's too
    shard, others = ((now - then) / settings.steps for now, then in zip(_sockets(trainer.port), before, strict=True))
    found = {"step": shard + others, "exchange": shard, "dense_part": others}
    if hook and counted:
        found |= _counted(hook, counted)
    return found


def _sockets(shard_port: int) -> tuple[int, int]:
    """Counts the bytes to and from the shard, and the other trainer."""
    shard = tcp_bytes(shard_port)
    return shard, tcp_bytes() - shard


def _counted(hook: DctHook, before: DenseStats) -> dict[str, float]:
    """Returns the bytes that the hook counts itself, without those that gloo and DDP add; and what they would be with
    just the elements asked for, without padding to the longest payload."""
    since, config = hook.stats().since(before), DenseConfig()
    size = since.elements / since.steps
    gap = 1 / (1 - (1 - config.density) ** 255)  # bytes a position, as ps.nn.dense.config says
    payload = SIZE_BYTES + HEADER_BYTES + config.density * size * (gap + 2)
    return {
        "counted_factor": since.factor,
        "elements_sent_share": since.elements_sent / since.elements,
        "factor_at_density": 4 * size / payload,
    }


def main(rank: int, meeting: str) -> None:
    """Trains as it is told until stdin ends."""
    print("ready", flush=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    for line in sys.stdin:
        settings = Settings(**json.loads(line))
        with connect(settings) as client:
            print(json.dumps(train(rank, settings, client)), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
