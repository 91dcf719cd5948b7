"""The part of `wirebytes` that needs two trainers: the dense part and the whole step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Literal

from benchmarks.harness.processes import Child, child
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.wire.rank import RANKS, Settings
from benchmarks.wire.trainer import WIDTHS
from ps.nn.dense import DenseConfig

Way = Literal["dense", "compressed"]


def run(report: Report, sizes: Sizes, address: str, table: str) -> None:
    """Measures every width of model and each way of sending."""
    with _pair() as ranks:
        for widths in WIDTHS:
            dense = _train(ranks, _settings(sizes, address, table, widths, "dense"))
            compressed = _train(ranks, _settings(sizes, address, table, widths, "compressed"))
            suffix = "" if widths == "default" else f"_{widths}"
            _compare(report, suffix, dense, compressed)


def _compare(report: Report, suffix: str, dense: Mapping[str, float], compressed: Mapping[str, float]) -> None:
    for part in ("step", "dense_part"):
        report.add(part + suffix, "bytes_saved_factor", dense[part] / compressed[part])
        report.add(part + suffix, "bytes_dense", dense[part])
        report.add(part + suffix, "bytes_compressed", compressed[part])
    for metric in ("factor_at_density", "counted_factor", "elements_sent_share"):
        report.add(f"dense_part{suffix}", metric, compressed[metric])


@contextmanager
def _pair() -> Iterator[list[Child]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        meeting, loopback = str(Path(folder) / "meeting"), {"GLOO_SOCKET_IFNAME": "lo"}
        yield [
            stack.enter_context(child("benchmarks.wire.rank", str(rank), meeting, environment=loopback))
            for rank in range(RANKS)
        ]


def _settings(sizes: Sizes, address: str, table: str, widths: str, way: Way) -> Settings:
    # over a whole life of the dense part's thresholds, and not the first, of large gradients
    life = min(DenseConfig().reestimate_every, 2 * sizes.rounds)
    warm_up, steps = (life, life) if way == "compressed" else (1, sizes.wire_steps)
    return Settings(address, table, way, widths, sizes.wire_ids, sizes.batch, sizes.dim, warm_up, steps)


def _train(ranks: list[Child], settings: Settings) -> dict[str, float]:
    """Returns the bytes a step of one trainer, as the mean of both."""
    told = json.dumps(asdict(settings))
    with ThreadPoolExecutor(len(ranks)) as pool:  # each waits for the other
        found = [json.loads(answer) for answer in pool.map(lambda rank: rank.ask(told), ranks)]
    return {name: mean(one[name] for one in found) for name in found[0]}
