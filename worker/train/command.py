"""The reference trainer: a DLRM whose embeddings live on the shards.

    python -m worker.train --data flights --local 2
    python -m worker.train --data flights --local 2 --trainers 2 --sparsify 0.2 --dense-density 0.2
    python -m worker.train --data flights --local 2 --trainers 2 --mode synchronous
    python -m worker.train --data criteo --path day_0.gz --service 10.0.0.5:7370 --checkpoint-dir /shared/run-1 --resume
    torchrun --nnodes 2 ... -m worker.train --data criteo --path day_0.gz --service 10.0.0.5:7370

Shards that it launches itself (`--local`) keep half of the rows on disk, in a temporary directory that is removed with
them. `worker.train.run` says what a run does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from ps.errors import InvalidArgument, PsError
from ps.nn.dense import DenseConfig
from ps.nn.sparsify.thresholds import TopK
from worker.data.errors import DataError
from worker.train import options
from worker.train.interruption import remembered
from worker.train.ranks import Meeting, TrainerFailed, run_ranks
from worker.train.run import ALONE, run
from worker.train.service import service_address
from worker.train.settings import Checkpoints, Data, Settings, batches_ahead

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def train(
    data: options.DataOption = "flights",
    path: options.PathOption = None,
    rows: options.RowsOption = 500_000,
    on_error: options.OnErrorOption = "skip",
    max_malformed: options.MaxMalformedOption = 0.01,
    tables: options.TablesOption = None,
    service: options.ServiceOption = "",
    local: options.LocalOption = 0,
    dim: options.DimOption = 16,
    optimizer: options.OptimizerOption = "adagrad",
    lr: options.LrOption = 0.05,
    dense_lr: options.DenseLrOption = 0.02,
    batch_size: options.BatchSizeOption = 512,
    disk: options.DiskOption = None,
    no_disk: options.NoDiskOption = False,
    swap_fraction: options.SwapFractionOption = 0.5,
    depth: options.DepthOption = "auto",
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = 1,
    trainers: options.TrainersOption = 1,
    mode: options.ModeOption = "hybrid",
    max_staleness: options.MaxStalenessOption = None,
    pull_ahead: options.PullAheadOption = 0,
    sparsify: options.SparsifyOption = None,
    wire_dtype: options.WireDtypeOption = "fp32",
    compress_ids: options.CompressIdsOption = False,
    dense_density: options.DenseDensityOption = 1.0,
    checkpoint_dir: options.CheckpointDirOption = None,
    checkpoint_every: options.CheckpointEveryOption = 1000,
    resume: options.ResumeOption = False,
    rewind: options.RewindOption = False,
    service_checkpoints: options.ServiceCheckpointsOption = None,
) -> None:
    """Trains a click model, its rows on a parameter server, in one pass; predicts each batch before it trains on it.

    Say where rows live: --local 2 launches two shards on this machine, --service HOST:PORT uses a running service."""
    settings = Settings(
        data=Data(data, tuple(path or ()), rows, on_error, max_malformed),
        tables=tables,
        dim=dim,
        optimizer=optimizer,
        lr=lr,
        dense_lr=dense_lr,
        batch_size=batch_size,
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
        checkpoints=Checkpoints(checkpoint_dir, checkpoint_every, resume or rewind, service_checkpoints, rewind),
    )
    start(trainers, settings, service, local, disk, no_disk)


def start(trainers: int, settings: Settings, service: str, local: int, disk: Path | None, no_disk: bool) -> None:
    """Runs this process's trainer, or starts as many trainers as were asked for in processes of their own. settings:
    with the size of the batch of all trainers."""
    place = place_of(trainers, service, settings.dense.density)
    ranks = max(place.ranks, trainers)
    settings = replace(settings, batch_size=share_of_batch(settings.batch_size, ranks))
    settings.check_modes(ranks)
    settings.checkpoints.check()
    source = settings.open_source()
    settings.table_configs(source)  # what is wrong with the options is said before anything is launched
    with remembered() as interruption, service_address(service, local, disk, no_disk) as address:
        if trainers == 1:
            run(place, settings, address, source, interruption)
            return
        del source  # the trainers open their own
        try:
            run_ranks(trainers, run, settings, address)
        finally:
            Console().show_cursor()  # the progress bar of a trainer that was ended has hidden it


def place_of(trainers: int, service: str, dense_density: float) -> Meeting:
    """Returns the place of this process among the trainers: alone, unless `torchrun` says otherwise. Raises
    InvalidArgument for options that do not fit the place."""
    place = Meeting.of_environment() or ALONE
    if place.ranks > 1 and (trainers > 1 or not service):
        raise InvalidArgument(
            f"torchrun has started {place.ranks} trainers: give them --service HOST:PORT, and no --trainers or --local"
        )
    if dense_density != 1 and place.ranks == trainers == 1:
        raise InvalidArgument("--dense-density is for --trainers 2 or more: one trainer exchanges nothing")
    return place


def share_of_batch(batch_size: int, ranks: int) -> int:
    """Returns how many samples of a batch each trainer has. Raises InvalidArgument if they cannot share it evenly."""
    if batch_size % ranks:
        raise InvalidArgument(f"--batch-size {batch_size} cannot be shared out evenly among {ranks} trainers")
    return batch_size // ranks


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Runs the command, with sys.argv if nothing is given. An error of this project is printed as one line, without a
    traceback."""
    try:
        app(arguments, prog_name=program)
    except (PsError, DataError, TrainerFailed) as error:
        line = Text.assemble((type(error).__name__, "red"), f": {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        raise SystemExit(1) from None
