"""Trains whole steps over a slow network, with the default compression against none.

Two network namespaces, a veth pair, a token bucket on both ends; no delay is added. The shards are on one side, the
trainer on the other (`benchmarks.wire.link_trainer`): a DLRM on Criteo-shaped data of Meta's skew in one table, the ids
of a history of which have rows already, batches prepared ahead. Plain: fp32 rows and gradients, ids of 8 bytes.
Compressed: TopK(hold=None), wire_dtype="int8", compress_ids=True. In turn, round by round, over the same link.

Where computing takes C and the bytes take B on the link, a step takes C + B: pulls do not run beside the step before.
So what is saved depends on the link as much as on the bytes; `link_share` is B / (C + B).
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import ps
from benchmarks.harness.measure import WARM_UP_ROUNDS, Contender, Rounds, interleave
from benchmarks.harness.processes import Child, child
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.wire.link_trainer import WAYS, Settings
from benchmarks.wire.namespaces import End, NotPermitted, link, shape

RATES = {"100mbit": 100_000_000, "1gbit": 1_000_000_000}
"""Bits a second, each way."""
FILL_RATE = 10_000_000_000
"""The rate while rows are filled in."""
STEPS = 4
"""Steps of a round."""


def run(report: Report, sizes: Sizes) -> None:
    """Measures every rate in turn. Where there can be no namespaces it prints one line on stderr and no figures."""
    settings = Settings(
        addresses={},
        history=sizes.rows // 10,
        ids=sizes.rows // 4,
        dim=sizes.dim,
        batch=sizes.batch // 50,
        steps=len(RATES) * (WARM_UP_ROUNDS + sizes.rounds) * STEPS,
    )
    with ExitStack() as stack:
        try:
            ends = stack.enter_context(link())
            shape(ends, FILL_RATE)  # and so it is known that it can be done
        except NotPermitted as reason:
            print(f"link: skipped: {reason}", file=sys.stderr, flush=True)
            return
        trainer = started(stack, ends, settings)
        for case, rate in RATES.items():
            shape(ends, rate)
            _measure(report, case, rate, trainer, sizes.rounds)


def started(stack: ExitStack, ends: tuple[End, End], settings: Settings) -> Child:
    """Starts a shard for each way on one side and the trainer on the other."""
    near, far = ends
    config = ps.ServiceConfig(
        network=ps.NetworkConfig(host=far.address), watching=ps.WatchingConfig(metrics=False)
    ).to_json()
    shards = {
        name: stack.enter_context(child("benchmarks.harness.server", "0", config, within=far.within)).address
        for name in WAYS
    }
    told = replace(settings, addresses=shards).to_json()
    return stack.enter_context(child("benchmarks.wire.link_trainer", told, within=near.within))


def trained(trainer: Child, way: str, steps: int) -> int:
    """Trains so many steps, and returns the bytes that they sent over the link."""
    answer = trainer.ask(f"{way} {steps}")
    if not answer:
        raise RuntimeError("the trainer has ended; its stderr says why")
    return int(answer)


def _measure(report: Report, case: str, rate: int, trainer: Child, rounds: int) -> None:
    carried: dict[str, list[float]] = {way: [] for way in WAYS}

    def train(way: str, _: object) -> None:
        carried[way].append(trained(trainer, way, STEPS) / STEPS)

    found = interleave(rounds, {way: Contender(partial(train, way)) for way in WAYS})
    report.add(
        case, "step_time_saved_percent", [100 * (1 - share) for share in found.time_share("compressed", "plain")]
    )
    counted = {way: carried[way][WARM_UP_ROUNDS:] for way in WAYS}
    for way in WAYS:
        report.add(case, f"{way}_bytes_per_step", counted[way])
        report.add(case, f"{way}_step_ms", [1e3 / speed for speed in found.per_second(way, STEPS)])
        report.add(case, f"{way}_link_share", _busy(found, way, counted[way], rate))
    report.add(
        case, "bytes_saved_factor", [a / b for a, b in zip(counted["plain"], counted["compressed"], strict=True)]
    )


def _busy(found: Rounds, way: str, counted: list[float], rate: int) -> list[float]:
    """Returns the share of a step that its bytes take at the link's rate, one direction after the other."""
    return [
        8 * carried / rate / (seconds / STEPS) for carried, seconds in zip(counted, found.seconds[way], strict=True)
    ]
