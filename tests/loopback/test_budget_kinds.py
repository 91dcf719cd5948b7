"""Server processes with little RAM, and tables of all kinds in them: what fits alone gets through, and the process
takes what it was given and says what it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ps
from benchmarks.engine.budget import watched
from benchmarks.harness.service import one_shard
from ps.storage.budget.aside import fitted
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.slots import SLOT_BYTES
from ps.table.beside import fixed_bytes

TOLERANCE = 1.15
"""1.05 is what is wanted, and what most cases keep. Without a disk, a push of most of the room has been seen at 1.12
while it is applied; docs/architecture.md has it among the limits."""
SAID_BESIDE = 8 << 20
"""What is said may be beyond 5 % of what there is: pages that were given back, and counts that are not written yet."""
DEADLINE_S = 120.0
SPACE = 10**6
CASES = int(os.environ.get("BUDGET_CASES", "6"))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": ps.Adagrad(lr=0.1)},
    "wide": {"dim": 128},
    "narrow": {"dim": 4},
    "adam": {"optimizer": ps.Adam()},
    "fp16": {"cold": ps.Fp16(hot_fraction=0.1), "half_life_pushes": 200, "optimizer": ps.Adagrad(lr=0.1)},
    "late": {"cold": ps.Fp16(hot_fraction=0.1), "half_life_pushes": 10_000, "optimizer": ps.Adagrad(lr=0.1)},
    "threshold": {"admission": ps.CountThreshold(min_count=2, cells=1 << 18)},
    "lots": {"admission": ps.Probability(p=0.05)},
    "swapped": {"swap_fraction": 0.8},
    "expiring": {"expire_after_pushes": 40},
    "tt": {
        "cold": ps.TensorTrain(rows=SPACE, ranks=8, hot_rows=500),
        "initializer": ps.Normal(std=0.1),
        "half_life_pushes": 200,
    },
}
cases = st.fixed_dictionaries(
    {
        "ram": st.sampled_from([64, 96, 128]),
        "has_disk": st.booleans(),
        "kinds": st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=6),
        "requests": st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, 3), st.sampled_from([0.02, 0.1, 0.3, 0.7]), st.booleans()),
            min_size=4,
            max_size=12,
        ),
        "seed": st.integers(0, 99),
    }
)
"""Of each request: its first table, how many of those after it too, its share of the room, whether it is prepared."""


def room_of(config: ps.ServiceConfig, tables: list[ps.TableConfig]) -> int:
    """Bytes of rows that there is room for, beside what tables have for themselves and rows that stay in RAM."""
    room = RamBudget(config).for_slots(len(tables)) or 0
    for table in tables:
        room -= sum(fixed_bytes(table, config.disk.path is not None).values())
        if isinstance(table.cold, ps.TensorTrain):
            room -= int(1.5 * table.cold.hot_rows) * row_bytes(table)
    return room


def row_bytes(table: ps.TableConfig) -> int:
    state = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": table.dim, "adam": 2 * table.dim}[table.optimizer.kind]
    return 4 * (table.dim + state) + SLOT_BYTES + (12 if isinstance(table.cold, ps.Fp16) else 0)


def requests_of(
    case: dict[str, Any], tables: list[ps.TableConfig], room: int, most_body: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], bool]]:
    """Ids and gradients by table, and whether to pull them first. Of ids that are drawn anew each time."""
    rng = np.random.default_rng(case["seed"])
    for first, n_tables, share, pulls in 4 * case["requests"]:
        chosen = [tables[(first + n) % len(tables)] for n in range(min(n_tables, len(tables)))]
        ids, grads = {}, {}
        for table in chosen:
            rows = int(share * room / len(chosen)) // row_bytes(table)
            rows = max(min(rows, most_body // len(chosen) // (4 * table.dim + 16)), 1)
            ids[table.name] = np.unique(rng.integers(0, SPACE, rows))
            grads[table.name] = np.ones((len(ids[table.name]), table.dim), np.float32)
        yield ids, grads, pulls


@pytest.mark.slow
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,  # a measurement: what CI looks at is the same each time, and BUDGET_CASES looks further
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(cases)
def test_what_fits_alone_gets_through_within_what_was_given(case: dict[str, Any]) -> None:
    ram = case["ram"] << 20
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = ps.ServiceConfig(
            memory={"ram_bytes": ram}, disk={"path": folder if case["has_disk"] else None}, watching={"metrics": False}
        )
        tables = [ps.TableConfig(**{"name": f"t{n}", "dim": 32, **KINDS[kind]}) for n, kind in enumerate(case["kinds"])]
        started, server = stack.enter_context(one_shard(config))
        memory = stack.enter_context(watched(server.pid))
        address = started.shards()[0].address
        client = stack.enter_context(ps.connect(address, timeout_s=DEADLINE_S))
        for table in tables:
            client.create_table(table)
        room, most_body = room_of(config, tables), fitted(config).limits.max_body_bytes
        for ids, grads, pulls in requests_of(case, tables, room, most_body):
            step = client.prepare(ids)
            if pulls:
                step.pull()
            step.push(grads)
        said, now = client.memory_usage()["total"], memory.now()
        print(
            f"{case['ram']} MiB, {'disk' if case['has_disk'] else 'no disk'}, {case['kinds']}: peak "
            f"{memory.peak / ram:.2f} of ram_bytes, said {said / now:.3f} of {now >> 20} MiB"
        )
        assert memory.peak < ram * TOLERANCE
        assert said == pytest.approx(now, rel=0.05, abs=SAID_BESIDE)
