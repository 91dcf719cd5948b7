"""The reference trainer: a DLRM whose embeddings live on the shards.

    python -m worker.train --data flights --local 2
    python -m worker.train --data flights --local 2 --trainers 2 --sparsify 0.2 --dense-density 0.2
    python -m worker.train --data flights --local 2 --trainers 2 --mode synchronous
    python -m worker.train --data criteo --path day_0.gz --service 10.0.0.5:50051
    torchrun --nnodes 2 ... -m worker.train --data criteo --path day_0.gz --service 10.0.0.5:50051

Shards that it launches itself (`--local`) keep half of the rows on disk, in a temporary directory that goes with them.
What a run does is in `worker.train.run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from ps.errors import InvalidArgument, PsError
from ps.nn.dense import DenseConfig
from ps.nn.sparsify.thresholds import TopK
from worker.data.errors import DataError
from worker.train.ranks import Meeting, TrainerFailed, run_ranks
from worker.train.run import ALONE, run
from worker.train.scratch import scratch_folder
from worker.train.settings import OPTIMIZERS, Settings, batches_ahead

DATA, ROWS, MODEL = "Data", "Where the rows live", "Model"
RANKS, WIRE = "Several trainers", "What is sent, and when"
"""The panels of --help."""

out = Console()


@contextmanager
def disk_folder(disk: Path | None, no_disk: bool) -> Iterator[Path | None]:
    """Where local shards keep rows on disk: the folder asked for, else a temporary one, gone at the end."""
    if no_disk and disk is not None:
        raise InvalidArgument(f"--disk {disk} and --no-disk: choose one")
    if no_disk or disk is not None:
        yield disk and disk.expanduser().absolute()
        return
    with scratch_folder() as folder:
        yield folder


@contextmanager
def service_address(service: str, local: int, disk: Path | None, no_disk: bool) -> Iterator[str]:
    """A running service, or one of our own that is launched for as long as the training takes."""
    if bool(service) == bool(local):
        raise InvalidArgument("say where the rows live: --service HOST:PORT, or --local N to launch N shards here")
    if service:
        if disk is not None or no_disk:
            raise InvalidArgument("--disk and --no-disk are for --local: a running service has its own disk_path")
        yield service
        return
    with disk_folder(disk, no_disk) as folder, _launched(local, folder) as address:
        yield address


@contextmanager
def _launched(shards: int, folder: Path | None) -> Iterator[str]:
    import ps

    with out.status(f"launching {shards} shards on Ray..."):
        running = ps.launch(shards=shards, config=ps.ServiceConfig(disk=ps.DiskConfig(path=folder)))
    with running:
        out.print(f"{shards} shards at {running.address}, metrics at {', '.join(running.metrics_addresses)}")
        out.print(f"rows on disk: below {folder}" if folder else "all rows in RAM", highlight=False)
        yield running.address


def place_of(trainers: int, service: str, dense_density: float) -> Meeting:
    """Of this process: alone, unless `torchrun` says otherwise. Raises InvalidArgument for options that fit neither."""
    place = Meeting.of_environment() or ALONE
    if place.ranks > 1 and (trainers > 1 or not service):
        raise InvalidArgument(
            f"torchrun has started {place.ranks} trainers: give them --service HOST:PORT, and no --trainers or --local"
        )
    if dense_density != 1 and place.ranks == trainers == 1:
        raise InvalidArgument("--dense-density is for --trainers 2 or more: one trainer exchanges nothing")
    return place


def train(
    data: Annotated[
        str,
        typer.Option(
            help="flights (a year of flights: late or not?), criteo (your files) or synthetic.", rich_help_panel=DATA
        ),
    ] = "flights",
    path: Annotated[
        list[str] | None,
        typer.Option(
            help="For criteo: a file, plain or gzip; again for more, or a quoted pattern: 'day_*'.",
            metavar="FILE",
            rich_help_panel=DATA,
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(help="How many rows to generate, for synthetic.", min=1, rich_help_panel=DATA)
    ] = 500_000,
    on_error: Annotated[
        str, typer.Option(help="A malformed line, in criteo: skip or stop.", rich_help_panel=DATA)
    ] = "skip",
    max_malformed: Annotated[
        float,
        typer.Option(
            help="Share of a file's lines that may be malformed and skipped.",
            min=0,
            max=1,
            metavar="SHARE",
            rich_help_panel=DATA,
        ),
    ] = 0.01,
    tables: Annotated[
        Path | None,
        typer.Option(help="YAML of settings per table, {table: {field: value}}.", exists=True, rich_help_panel=ROWS),
    ] = None,
    service: Annotated[str, typer.Option(help="host:port of a running service.", rich_help_panel=ROWS)] = "",
    local: Annotated[
        int, typer.Option(help="Launch this many shards on a local Ray.", min=0, rich_help_panel=ROWS)
    ] = 0,
    dim: Annotated[int, typer.Option(help="Floats of an embedding.", min=1, rich_help_panel=MODEL)] = 16,
    optimizer: Annotated[
        str, typer.Option(help="Of the embeddings: " + ", ".join(OPTIMIZERS) + ".", rich_help_panel=MODEL)
    ] = "adagrad",
    lr: Annotated[float, typer.Option(help="Learning rate of the embeddings.", rich_help_panel=MODEL)] = 0.05,
    dense_lr: Annotated[
        float, typer.Option(help="Learning rate of the dense layers (Adagrad).", rich_help_panel=MODEL)
    ] = 0.02,
    batch_size: Annotated[
        int, typer.Option(help="Rows in a batch, of all trainers together.", min=1, rich_help_panel=MODEL)
    ] = 512,
    disk: Annotated[
        Path | None,
        typer.Option(
            help="With --local: directory for the rows on disk, on an SSD; emptied at the start, stays at the end. "
            "Default: a temporary one (below TMPDIR), removed at the end.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    no_disk: Annotated[
        bool, typer.Option("--no-disk", help="With --local: all rows stay in RAM.", rich_help_panel=ROWS)
    ] = False,
    swap_fraction: Annotated[
        float,
        typer.Option(
            help="Share of each table's rows, the least used, that live on disk.",
            min=0.0,
            max=0.999,
            rich_help_panel=ROWS,
        ),
    ] = 0.5,
    depth: Annotated[
        str,
        typer.Option(
            help='Batches prepared ahead: a number, or "auto", as many as pass while one is prepared.',
            rich_help_panel=WIRE,
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="For the dense layers, and for synthetic data.", rich_help_panel=MODEL)] = 0,
    threads: Annotated[
        int, typer.Option(help="Threads of torch; local shards need the other cores.", min=1, rich_help_panel=MODEL)
    ] = 1,
    trainers: Annotated[
        int,
        typer.Option(
            help="Trainer processes: each has its part of a batch; the dense part in step, embeddings by --mode.",
            min=1,
            rich_help_panel=RANKS,
        ),
    ] = 1,
    mode: Annotated[
        str,
        typer.Option(
            help="With --trainers: hybrid (embeddings asynchronous) or synchronous (gradients of all summed, applied "
            "once, as one trainer would).",
            rich_help_panel=RANKS,
        ),
    ] = "hybrid",
    max_staleness: Annotated[
        int | None,
        typer.Option(
            help="With --trainers, hybrid: a trainer that is more than so many steps ahead of the slowest waits.",
            min=0,
            rich_help_panel=RANKS,
        ),
    ] = None,
    pull_ahead: Annotated[
        int,
        typer.Option(
            help="Pull the rows of so many batches ahead, while another trains: their rows lack as many steps at most.",
            min=0,
            rich_help_panel=WIRE,
        ),
    ] = 0,
    sparsify: Annotated[
        float | None,
        typer.Option(
            help="Push this share of the rows' gradients, the largest, and those that may not wait; the others do.",
            metavar="DENSITY",
            rich_help_panel=WIRE,
        ),
    ] = None,
    wire_dtype: Annotated[
        Literal["fp32", "fp16", "int8", "by-importance"],
        typer.Option(
            help="Rows and gradients on the wire; by-importance: the most important as fp32, others as int8.",
            rich_help_panel=WIRE,
        ),
    ] = "fp32",
    compress_ids: Annotated[
        bool,
        typer.Option(
            "--compress-ids", help="Send ids sorted, as the gaps between them: for slow networks.", rich_help_panel=WIRE
        ),
    ] = False,
    dense_density: Annotated[
        float,
        typer.Option(
            help="With --trainers: share of the dense gradients that is exchanged, the largest; the others wait.",
            metavar="DENSITY",
            rich_help_panel=RANKS,
        ),
    ] = 1.0,
) -> None:
    """Trains a click model whose embeddings live on a parameter server, and reports progressive AUC and log loss.

    Say where the rows live: --local 2 launches two shards on this machine, --service HOST:PORT uses a running service.
    One pass over the data; every batch is predicted before it is trained on, so the AUC is of rows not yet seen.
    """
    place = place_of(trainers, service, dense_density)
    ranks = max(place.ranks, trainers)
    if batch_size % ranks:
        raise InvalidArgument(f"--batch-size {batch_size} cannot be shared out evenly among {ranks} trainers")
    settings = Settings(
        data=data,
        paths=tuple(path or ()),
        rows=rows,
        on_error=on_error,
        max_malformed=max_malformed,
        tables=tables,
        dim=dim,
        optimizer=optimizer,
        lr=lr,
        dense_lr=dense_lr,
        batch_size=batch_size // ranks,
        swap_fraction=swap_fraction,
        depth=batches_ahead(depth),
        seed=seed,
        threads=threads,
        sparsify=None if sparsify is None else TopK(density=sparsify),
        wire_dtype=wire_dtype,
        compress_ids=compress_ids,
        dense=DenseConfig(density=dense_density),
        mode=mode,
        max_staleness=max_staleness,
        pull_ahead=pull_ahead,
    )
    settings.check_modes(ranks)
    source = settings.open_source()
    settings.table_configs(source)  # what is wrong with the options is said before anything is launched
    with service_address(service, local, disk, no_disk) as address:
        if trainers == 1:
            run(place, settings, address, source)
            return
        del source  # the trainers open their own
        try:
            run_ranks(trainers, run, settings, address)
        finally:
            out.show_cursor()  # the progress bar of a trainer that was ended has hidden it


def main() -> None:
    """Entry point: our own errors are one line, not a stack."""
    try:
        typer.run(train)
    except (PsError, DataError, TrainerFailed) as error:
        line = Text.assemble((type(error).__name__, "red"), f": {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        raise SystemExit(1) from None
