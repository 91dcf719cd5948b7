"""What a training run shows: a progress bar while it runs, figures and tables at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ps import Client
from ps.nn.dense import DenseStats
from ps.nn.embedding.ahead import PullStaleness
from worker.data.source import Source
from worker.report.metrics import Progressive

USED = ("read", "updated", "created", "refused", "evicted", "expired")
CORES = ("in_cores", "folded", "kept")
"""Counters of tensor-train tables: gradients that trained the cores, rows folded back, rows kept because folding was
too inexact."""
MOVED = ("raised", "demoted", "late")
"""Counters of `Table.stats`: rows that came up from disk, rows that went down to it, and rows that were read from it
while a pull or a push waited."""

PUSH = "Push"
"""The name of the push call in a client's traffic."""


@dataclass(frozen=True)
class Share:
    """One trainer's part in a run."""

    probabilities_N: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.bool_]
    """The labels of the trainer's rows, in its order."""
    client: Mapping[str, Any]
    """The `traffic()` of the trainer's client."""
    whole_gradient_bytes: int
    dense: DenseStats | None
    dense_digest: str
    staleness: PullStaleness


Advance = Callable[[int, float], None]
"""advance(rows, loss) moves the progress bar."""


@contextmanager
def progress(source: Source, console: Console, before: int = 0) -> Iterator[Advance]:
    """Shows a bar over the source's rows, with the smoothed loss and the samples per second. before: rows that an
    earlier run has trained on."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} samples/s  loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(source.name, total=source.len_rows, completed=before, rate="-", loss="-")
        smoothed: float | None = None

        def advance(rows: int, loss: float) -> None:
            nonlocal smoothed
            smoothed = loss if smoothed is None else 0.98 * smoothed + 0.02 * loss
            left = None if source.len_rows is None else source.len_rows - bar.tasks[task].completed
            speed = bar.tasks[task].speed
            bar.update(
                task,
                advance=rows if left is None else min(rows, left),
                loss=f"{smoothed:.4f}",
                rate=f"{speed:,.0f}" if speed else "-",
            )

        yield advance


def summary(console: Console, source: Source, metrics: Progressive, seconds: float, before: int = 0) -> None:
    """Returns the result of a run: speed, progressive AUC and log loss, over everything and over the windows that the
    source names. before: rows that an earlier run has trained on, which this one has not spent the seconds on."""
    rows = len(metrics)
    made, resumed = max(rows - before, 0), f", after {before:,} before" if before else ""
    console.print(f"\n{made:,} samples in {seconds:.1f} s: {made / seconds:,.0f} samples/s{resumed}", highlight=False)
    windows = {"all": slice(0, rows), **source.windows()}
    for name, window in windows.items():
        console.print(f"progressive AUC, {name}: {quality(metrics, window)}", highlight=False)
    console.print("AUC: 0.5 is guessing, 1 perfect; samples are predicted before they are trained on", style="dim")
    for line in source.remarks():
        console.print(Text(line, "yellow"), soft_wrap=True)


def health(console: Console, client: Client) -> None:
    """Returns the last line of a run, which says whether all went well."""
    shards = client.stats()["shards"]
    ill = [shard["shard_id"] for shard in shards if shard["degraded"]]
    if ill:
        console.print(Text(f"{len(ill)} of {len(shards)} shards are degraded: {ill}, see above", "yellow"))
    else:
        well = "the shard is well" if len(shards) == 1 else f"all {len(shards)} shards are well"
        console.print(Text(f"all gradients are applied, {well}", "green"))


def quality(metrics: Progressive, window: slice = slice(None)) -> str:
    """Returns AUC and log loss of a stretch of rows, or words if there is no such figure."""
    _, labels_N = metrics.rows()
    labels_W = labels_N[window]
    if not len(labels_W):
        return "none, there are no rows"
    one_class = labels_W.all() or not labels_W.any()
    area = f"none, all {len(labels_W):,} labels are {int(labels_W[0])}" if one_class else f"{metrics.auc(window):.4f}"
    return f"{area}   log loss: {metrics.log_loss(window):.4f}"


def where_rows_live(console: Console, client: Client) -> None:
    """Returns rows and bytes by table and tier, what was used and what moved, and whether all shards are well."""
    stats = client.stats()
    shards = stats["shards"]
    table = Table("table", "tier", "rows", "bytes", title="where the rows live (hot: in RAM)")
    for part in stats["tiers"]:
        table.add_row(part["table"], part["tier"], f"{part['rows']:,}", decimal(part["bytes"]))
    console.print(table)
    console.print(_counters(shards, "rows that were used", USED))
    console.print(_counters(shards, "rows that moved", MOVED))
    console.print("raised: up from disk, demoted: down to it, late: up while a step waited", style="dim")
    if any(part["tensor_train"] for shard in shards for part in shard["tables"].values()):
        console.print(_counters(shards, "rows in and out of tensor-train cores", CORES))
    prepared, expired = (sum(shard[key] for shard in shards) for key in ("steps_prepared", "steps_expired"))
    console.print(f"steps prepared on a shard: {prepared:,}   of them expired unused: {expired:,}", highlight=False)
    if any(shard["disk_bytes"] is not None for shard in shards):
        files = sum(shard["disk_bytes"] or 0 for shard in shards)
        console.print(f"files on disk: {decimal(files)}; the newest rows are still in write buffers", highlight=False)
    for shard in shards:
        if shard["degraded"]:
            console.print(Text(f"shard {shard['shard_id']} is degraded: {shard['degraded']}", "yellow"))


def how_stale(console: Console, client: Client, shares: Sequence[Share]) -> None:
    """Returns which pushes the rows that were trained on lacked: the trainer's own, and on the shards those of all
    trainers."""
    by_pushes = sum((share.staleness.by_pushes for share in shares), Counter[int]())
    batches = ", ".join(f"{pushes}: {count:,}" for pushes, count in sorted(by_pushes.items()))
    console.print(f"batches by how many pushes of their own trainer their rows lack: {batches}", highlight=False)
    if renewed := sum(share.staleness.renewed for share in shares):
        console.print(f"rows pulled again, too stale: of {renewed:,} batches", highlight=False)
    parts = [shard["staleness"] for shard in client.stats()["shards"]]
    pushes, total = (sum(part[key] for part in parts) for key in ("pushes", "total"))
    mean, most = total / pushes if pushes else 0.0, max(part["most"] for part in parts)
    console.print(
        f"pushes on a shard between a pull and its push: {mean:.2f} on average, {most} at most", highlight=False
    )


def on_the_wire(console: Console, shares: Sequence[Share]) -> None:
    """Returns the bytes between trainers and shards, and by how much compression has reduced the bytes of gradients."""
    title = "bytes on the wire, this worker" if len(shares) == 1 else f"bytes on the wire, all {len(shares)} trainers"
    wire = Table("call", "sent", "received", title=title)
    for method in shares[0].client["sent_bytes"]:
        sent, received = (
            sum(share.client[way].get(method, 0) for share in shares) for way in ("sent_bytes", "received_bytes")
        )
        wire.add_row(method, decimal(sent), decimal(received))
    console.print(wire)
    kinds = Table("kind", "sent", "received", title="of that, by content")
    for kind in dict.fromkeys(kind for of_method in shares[0].client["sent_by_kind"].values() for kind in of_method):
        sent, received = (
            sum(of_method[kind] for share in shares for of_method in share.client[way].values())
            for way in ("sent_by_kind", "received_by_kind")
        )
        kinds.add_row(kind, decimal(sent), decimal(received))
    console.print(kinds)
    pushed = sum(share.client["sent_bytes"].get(PUSH, 0) for share in shares)
    whole = sum(share.whole_gradient_bytes for share in shares)
    console.print(_saved("gradients of rows, pushed", pushed, whole), highlight=False)
    if shared := [share.dense for share in shares if share.dense is not None]:
        sent_dense = sum(stats.sent_bytes for stats in shared)
        line = _saved("gradients of the dense part", sent_dense, sum(stats.dense_bytes for stats in shared))
        console.print(line, highlight=False)


def _saved(what: str, sent: float, whole: float) -> str:
    factor = f" = 1/{whole / sent:.1f}" if sent and whole else ""
    return f"{what}: {decimal(int(sent))} of {decimal(int(whole))} as whole float32{factor}"


def _counters(shards: Sequence[Mapping[str, Any]], title: str, names: Sequence[str]) -> Table:
    """Returns the counters by table, summed over all shards."""
    counters = Table("table", *names, title=title)
    for table in sorted({name for shard in shards for name in shard["tables"]}):
        parts = [shard["tables"][table] for shard in shards if table in shard["tables"]]
        counters.add_row(table, *(f"{sum(part[f'rows_{name}'] for part in parts):,}" for name in names))
    return counters
