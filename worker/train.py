"""The reference trainer: a DLRM whose embeddings live on the shards.

    python -m worker.train --data flights --local 2
    python -m worker.train --data criteo --path day_0.gz --service 10.0.0.5:50051

Shards that it launches itself (`--local`) keep half of the rows on disk, in a temporary directory that goes with them.

Progressive validation: each batch is predicted before it is trained on, so every prediction is on unseen data and one
pass both trains and measures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
import yaml
from rich.console import Console

from ps.client.client import Client, connect
from ps.config import SGD, Adagrad, Adam, RowwiseAdagrad, TableConfig, Uniform
from ps.errors import ConfigError, InvalidArgument, PsError
from worker import report
from worker.data.errors import DataError
from worker.data.source import Source
from worker.dlrm import DLRM
from worker.embedding import EmbeddingBagCollection, Feature
from worker.metrics import Progressive
from worker.prefetch import Prefetcher, PreparedBatch
from worker.thresholds import Sparsify

out = Console()

OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "rowwise_adagrad": RowwiseAdagrad, "adam": Adam}


def open_source(data: str, path: Path | None, rows: int, seed: int, on_error: str) -> Source:
    """The data set by name."""
    if data == "flights":
        from worker.data.flights import Flights

        return Flights()
    if data == "criteo":
        from worker.data.criteo import Criteo

        if path is None:
            raise InvalidArgument("--data criteo needs --path FILE (tab-separated, .gz too)")
        return Criteo(path, on_error=on_error)
    if data == "synthetic":
        from worker.data.synthetic import Synthetic

        return Synthetic(rows=rows, seed=seed)
    raise InvalidArgument(f"--data {data!r}: choose flights, criteo or synthetic")


def table_configs(
    source: Source, dim: int, optimizer: str, lr: float, swap_fraction: float, overrides: Path | None
) -> list[TableConfig]:
    """One configuration for each table that the source's features use; `overrides` is YAML, {table: {field: value}}."""
    if optimizer not in OPTIMIZERS:
        raise ConfigError(f"--optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    names = list(dict.fromkeys(feature.table for feature in source.features))
    special = yaml.safe_load(overrides.read_text()) if overrides else {}
    if unknown := set(special) - set(names):
        raise ConfigError(f"{overrides}: tables {sorted(unknown)} are not in this data; it has {names}")
    scale = dim**-0.5
    default: dict[str, Any] = {
        "dim": dim,
        "optimizer": OPTIMIZERS[optimizer](lr=lr),
        "initializer": Uniform(low=-scale / 10, high=scale / 10),
        "swap_fraction": swap_fraction,
    }
    return [TableConfig(name=name, **(default | special.get(name, {}))) for name in names]


def batches_ahead(depth: str) -> int | Literal["auto"]:
    """The option's value for a `Prefetcher`."""
    if depth == "auto":
        return "auto"
    if not depth.isdecimal():
        raise InvalidArgument(f'--depth {depth!r}: a number of batches, or "auto"')
    return int(depth)


class Trainer:
    """Model, dense optimizer and metrics."""

    def __init__(
        self,
        client: Client,
        source: Source,
        tables: list[TableConfig],
        dense_lr: float,
        seed: int,
        *,
        sparsify: Sparsify | None = None,
    ) -> None:
        torch.manual_seed(seed)
        features = [Feature(feature.name, feature.table) for feature in source.features]
        self.embeddings = EmbeddingBagCollection(client, tables, features, sparsify=sparsify)
        self.model = DLRM(source.n_dense, len(features), tables[0].dim)
        self.optimizer = torch.optim.Adagrad(self.model.parameters(), lr=dense_lr)
        self.metrics = Progressive()

    def step(self, batch: PreparedBatch) -> float:
        """Predicts, then trains; the loss."""
        logits = self.model(batch.dense, self.embeddings(batch.sparse, batch.labels))
        self.metrics.add(torch.sigmoid(logits.detach()).numpy(), batch.labels.numpy())
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.embeddings.step()
        return float(loss.detach())


@contextmanager
def disk_folder(disk: Path | None, no_disk: bool) -> Iterator[Path | None]:
    """Where local shards keep rows on disk: the folder asked for, else a temporary one, gone at the end however that
    comes about."""
    if no_disk and disk is not None:
        raise InvalidArgument(f"--disk {disk} and --no-disk: choose one")
    if no_disk or disk is not None:
        yield disk and disk.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="embedding-ps-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def service_client(service: str, local: int, disk: Path | None, no_disk: bool) -> Iterator[Client]:
    """Connects to a running service, or launches one of our own for as long as the training takes."""
    if bool(service) == bool(local):
        raise InvalidArgument("say where the rows live: --service HOST:PORT, or --local N to launch N shards here")
    if service:
        if disk is not None or no_disk:
            raise InvalidArgument("--disk and --no-disk are for --local: a running service has its own disk_path")
        with connect(service) as client:
            yield client
        return
    with disk_folder(disk, no_disk) as folder, _launched(local, folder) as client:
        yield client


@contextmanager
def _launched(shards: int, folder: Path | None) -> Iterator[Client]:
    import ps

    with out.status(f"launching {shards} shards on Ray..."):
        running = ps.launch(shards=shards, config=ps.ServiceConfig(disk_path=folder))
    with running, connect(running.address) as client:
        out.print(f"{shards} shards at {running.address}, metrics at {', '.join(running.metrics_addresses)}")
        out.print(f"rows on disk: below {folder}" if folder else "all rows in RAM", highlight=False)
        yield client


def train(
    data: Annotated[str, typer.Option(help="flights, criteo or synthetic.")] = "flights",
    path: Annotated[Path | None, typer.Option(help="The file, for criteo.", exists=True)] = None,
    rows: Annotated[int, typer.Option(help="How many rows to generate, for synthetic.", min=1)] = 500_000,
    on_error: Annotated[str, typer.Option(help="A malformed line, in criteo: skip or stop.")] = "skip",
    tables: Annotated[
        Path | None, typer.Option(help="YAML of settings per table, {table: {field: value}}.", exists=True)
    ] = None,
    service: Annotated[str, typer.Option(help="host:port of a running service.")] = "",
    local: Annotated[int, typer.Option(help="Launch this many shards on a local Ray.", min=0)] = 0,
    dim: Annotated[int, typer.Option(help="Floats of an embedding.", min=1)] = 16,
    optimizer: Annotated[str, typer.Option(help="Of the embeddings: " + ", ".join(OPTIMIZERS) + ".")] = "adagrad",
    lr: Annotated[float, typer.Option(help="Learning rate of the embeddings.")] = 0.05,
    dense_lr: Annotated[float, typer.Option(help="Learning rate of the dense layers (Adagrad).")] = 0.02,
    batch_size: Annotated[int, typer.Option(help="Rows in a batch.", min=1)] = 512,
    disk: Annotated[
        Path | None,
        typer.Option(
            help="With --local: directory for the rows on disk, on an SSD; emptied at the start, stays at the end. "
            "Default: a temporary one (below TMPDIR), removed at the end."
        ),
    ] = None,
    no_disk: Annotated[bool, typer.Option("--no-disk", help="With --local: all rows stay in RAM.")] = False,
    swap_fraction: Annotated[
        float,
        typer.Option(help="Share of each table's rows, the least used, that live on disk.", min=0.0, max=0.999),
    ] = 0.5,
    depth: Annotated[
        str,
        typer.Option(help='Batches prepared ahead: a number, or "auto", as many as pass while one is prepared.'),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="For the dense layers, and for synthetic data.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch; local shards need the other cores.", min=1)] = 1,
) -> None:
    """Trains a click model whose embeddings live on a parameter server, and reports progressive AUC and log loss."""
    torch.set_num_threads(threads)
    source = open_source(data, path, rows, seed, on_error)
    configs = table_configs(source, dim, optimizer, lr, swap_fraction, tables)
    ahead = batches_ahead(depth)
    with service_client(service, local, disk, no_disk) as client:
        trainer = Trainer(client, source, configs, dense_lr, seed)
        started = time.perf_counter()
        with report.progress(source, out) as advance:
            prefetcher = Prefetcher(source.batches(batch_size), trainer.embeddings, ahead)
            for batch in prefetcher:
                loss = trainer.step(batch)
                advance(len(batch.labels), loss)
        seconds = time.perf_counter() - started
        report.summary(out, source, trainer.metrics, seconds)
        out.print(f"batches prepared ahead, at the end: {prefetcher.depth}", highlight=False)
        report.where_rows_live(out, client)


def main() -> None:
    """Entry point: our own errors are one line, not a stack."""
    try:
        typer.run(train)
    except (PsError, DataError) as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
