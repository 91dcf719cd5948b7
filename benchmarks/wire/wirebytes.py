"""Counts all bytes of a training step, against dense fp32 with raw ids.

A DLRM trains on clicks of the published skew; its table is full (every id has a row), its shard another process. What
is compared differs in nothing but what is sent. Bytes are those of both directions on the trainer's sockets, as the
kernel counts them: messages, gRPC's and HTTP/2's framing, flow control; not TCP/IP's own headers, about 3 % either way.

push_5_percent        the push alone, at that density: rows selected, numbers and rows as fp16
push_5_percent_...    the same: rows or elements selected, fp32 or fp16; at 5 % int8 and ByImportance() too
exchange_...          prepare + pull + push of the same steps; ids as gaps
day_one               as 5_percent, while the uniform tail of the ids is met for the first time: new rows go whole
step, dense_part      two data-parallel trainers with the dense part's hook: all of a trainer's step, TopK(hold=None),
                      int8, and what it says to the other. Of DLRM as the trainer has it, and as published for Criteo
                      Terabyte

pooled_...            long bags, pooled by the trainer and by the shards (`wirepooled`)

`bound_factor` is what arithmetic allows (`wirebounds`), `times_bound` the measured bytes against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean

import numpy as np

import ps
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard
from benchmarks.harness.sizes import Sizes
from benchmarks.wire import bounds as wirebounds
from benchmarks.wire import kinds as wirekinds
from benchmarks.wire import pooled as wirepooled
from benchmarks.wire import ranks as wireranks
from benchmarks.wire.clicks import Clicks
from benchmarks.wire.trainer import CountingTrainer, model, table
from ps.nn.sparsify.thresholds import By, TopK
from ps.wire.formats import TableFormat, WireDtype
from ps.wire.kinds import KINDS

DENSITIES = {"1_percent": 0.01, "5_percent": 0.05, "20_percent": 0.2}
BOTH: tuple[By, By] = ("rows", "elements")
DEFAULT_BY, DEFAULT_DTYPE = BOTH[0], "fp16"
WIRE: dict[str, WireDtype] = {"fp16": "fp16", "fp32": "fp32", "int8": "int8", "by_importance": ps.ByImportance()}
FULL, EMPTY = "full", "day_one"
"""Names of tables."""
MEASURED_FROM = 1_000_000
"""The number of the first batch measured: the same for all, and none of these batches was seen in a warm-up."""
UNSEEN_FROM = 2 * MEASURED_FROM
"""The first batch measured where importance counts: rows of batches that were measured before have been used more than
others."""


@dataclass
class Measured:
    """Means over some steps."""

    push: float
    exchange: float
    kinds: Counter[str]
    unique: list[int] = field(default_factory=list)
    new_rows: list[float] = field(default_factory=list)
    rows_sent: list[float] = field(default_factory=list)
    important: list[float] = field(default_factory=list)
    values_sent: list[float] = field(default_factory=list)
    push_bound: list[float] = field(default_factory=list)
    exchange_bound: list[float] = field(default_factory=list)


def run(report: Report, sizes: Sizes) -> None:
    """Runs all cases, one after the other."""
    with filled(sizes) as address:
        wireranks.run(report, sizes, address, FULL)
        run_embeddings(report, sizes, address)
    wirepooled.run(report, sizes)


@contextmanager
def filled(sizes: Sizes) -> Iterator[str]:
    """Starts a shard whose table `FULL` has a row for every id, and gives its address."""
    with one_shard() as (client, server):
        client.create_table(table(FULL, sizes.dim))
        fill(client, FULL, np.arange(sizes.wire_ids), sizes.dim, sizes.batch)
        yield server.address


def run_embeddings(report: Report, sizes: Sizes, address: str) -> None:
    """Counts what one trainer and its shard say to each other."""
    bench = _Bench(report, sizes, Clicks(sizes.wire_ids, sizes.batch), address)
    dense = bench.dense()
    for name, density in DENSITIES.items():
        bench.one_density(dense, name, density)
    bench.day_one(dense)


class _Bench:
    def __init__(self, report: Report, sizes: Sizes, clicks: Clicks, address: str) -> None:
        self._report, self._sizes, self._clicks, self._address = report, sizes, clicks, address

    def dense(self) -> Measured:
        """Trains with raw ids in fp32 and nothing held back."""
        with self._client("fp32", compress_ids=False) as (client, tally):
            trainer = CountingTrainer(client, table(FULL, self._sizes.dim), model(self._sizes.dim, "default"))
            found = self._measure(trainer, tally)
        self._report.add("dense", "unique_ids", mean(found.unique))
        self._kinds("dense", found)
        return found

    def one_density(self, dense: Measured, name: str, density: float) -> None:
        """Measures one density. The selection is warmed up once; what it holds then goes on at the other precision."""
        warm_up = self._steps_before(density)
        for by in BOTH:
            state = None
            for dtype in self._dtypes(by, density):
                with self._client(WIRE[dtype], compress_ids=True) as (client, tally):
                    trainer = self._trainer(client, FULL, density, by)
                    if state is not None:
                        trainer.embeddings.load_state_dict(state)
                    self._warm_up(trainer, warm_up if state is None else 1)
                    found = self._measure(trainer, tally, dtype)
                    state = trainer.embeddings.state_dict()
                is_default = (by, dtype) == (DEFAULT_BY, DEFAULT_DTYPE)
                self._against(dense, found, name if is_default else f"{name}_{by}_{dtype}")
                if is_default:
                    self._kinds(name, found)

    def _dtypes(self, by: By, density: float) -> list[str]:
        return [dtype for dtype in WIRE if dtype in ("fp16", "fp32") or (by, density) == (DEFAULT_BY, 0.05)]

    def day_one(self, dense: Measured) -> None:
        """Trains a table that holds what the warm-up has met."""
        with self._client(DEFAULT_DTYPE, compress_ids=True) as (client, tally):
            trainer = self._trainer(client, EMPTY, 0.05, DEFAULT_BY)
            self._warm_up(trainer, self._steps_before(0.05))
            self._against(dense, self._measure(trainer, tally, DEFAULT_DTYPE), EMPTY)

    def _trainer(self, client: ps.Client, name: str, density: float, by: By) -> CountingTrainer:
        dim = self._sizes.dim
        return CountingTrainer(client, table(name, dim), model(dim, "default"), TopK(density=density, by=by, hold=None))

    def _steps_before(self, density: float) -> int:
        """Returns the steps before the measured ones. Residuals build up for about 1 / density steps; at 1 % fewer
        steps do, since the threshold follows what they grow by."""
        return min(self._sizes.wire_warm_up, round(1 / density))

    def _warm_up(self, trainer: CountingTrainer, steps: int) -> None:
        for number in range(steps):
            trainer.step(self._clicks.batch(number))

    def _measure(self, trainer: CountingTrainer, tally: wirekinds.Tally, dtype: str = "") -> Measured:
        tally.take()
        found = Measured(0, 0, Counter())
        moved = []
        first = MEASURED_FROM if dtype != "by_importance" else UNSEEN_FROM
        for number in range(first, first + self._sizes.wire_steps):
            batch = self._clicks.batch(number)
            moved.append(trainer.step(batch))
            found.unique.append(len(trainer.prepared.ids[trainer.table]))
            if dtype:
                self._bound(found, trainer, tally, dtype)
        found.push, found.exchange = mean(one.push for one in moved), mean(one.exchange for one in moved)
        found.kinds = tally.take()
        return found

    def _bound(self, found: Measured, trainer: CountingTrainer, tally: wirekinds.Tally, dtype: str) -> None:
        (shape,) = tally.push_head.tables
        sent = wirebounds.sent(shape, tally.push_body)
        assert trainer.prepared.pulled is not None
        exists_U, unique = trainer.prepared.pulled.exists[trainer.table], shape.rows
        ids_N = np.concatenate([bags.ids.numpy() for bags in trainer.prepared.bags.values()])
        push = wirebounds.gradients_bound(sent, unique, shape.dim)
        form, important = TableFormat.of(WIRE[dtype]), tally.important
        widths = wirebounds.WIDTH[form.important], wirebounds.WIDTH[form.others]
        rows = shape.dim * (widths[0] * important + widths[1] * (unique - important))
        reads = wirebounds.reads_bound(self._clicks.total_ids, np.unique(ids_N, return_counts=True)[1], exists_U, rows)
        found.important.append(important / unique)
        found.push_bound.append(push)
        found.exchange_bound.append(push + reads)
        found.new_rows.append(1 - float(exists_U.mean()))
        found.rows_sent.append(sent.rows / unique)
        found.values_sent.append(sent.values / (unique * shape.dim))

    def _against(self, dense: Measured, found: Measured, case: str) -> None:
        parts = {
            "push": (dense.push, found.push, mean(found.push_bound)),
            "exchange": (dense.exchange, found.exchange, mean(found.exchange_bound)),
        }
        for part, (theirs, ours, bound) in parts.items():
            self._report.add(f"{part}_{case}", "bytes_saved_factor", theirs / ours)
            self._report.add(f"{part}_{case}", "bound_factor", theirs / bound)
            self._report.add(f"{part}_{case}", "times_bound", ours / bound)
        self._report.add(f"push_{case}", "rows_sent_share", mean(found.rows_sent))
        self._report.add(f"push_{case}", "elements_sent_share", mean(found.values_sent))
        self._report.add(f"push_{case}", "new_rows_share", mean(found.new_rows))
        if any(found.important):
            self._report.add(f"exchange_{case}", "important_rows_share", mean(found.important))

    def _kinds(self, case: str, found: Measured) -> None:
        """Reports the bytes a step by kind; what the sockets moved beyond the messages is framing."""
        steps = self._sizes.wire_steps
        for kind in KINDS:
            self._report.add(f"exchange_{case}", f"bytes_{kind}", found.kinds[kind] / steps)
        self._report.add(f"exchange_{case}", "bytes_framing", found.exchange - found.kinds.total() / steps)

    @contextmanager
    def _client(self, dtype: WireDtype, *, compress_ids: bool) -> Iterator[tuple[ps.Client, wirekinds.Tally]]:
        tally = wirekinds.Tally()
        with wirekinds.connect(self._address, tally, wire_dtype=dtype, compress_ids=compress_ids) as client:
            yield client, tally
