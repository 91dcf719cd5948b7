"""The settings of a training run: the options of `python -m worker.train` that every one of its trainers needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ps import ByImportance
from ps.config import SGD, Adagrad, Adam, RowwiseAdagrad, TableConfig, Uniform, yaml_file
from ps.errors import ConfigError, InvalidArgument
from ps.nn import TrainingCheckpoints
from ps.nn.dense import DenseConfig
from ps.nn.modes import ASYNCHRONOUS, Bounded, Group, Mode, Synchronous
from ps.nn.sparsify.thresholds import TopK
from worker.data.files import matching
from worker.data.source import Source

WIRE_DTYPES: dict[str, str | ByImportance] = {
    "fp32": "fp32",
    "fp16": "fp16",
    "int8": "int8",
    "by-importance": ByImportance(),
}
MODES = ("hybrid", "synchronous")
"""How embeddings train: asynchronously, or in step like the dense part."""
OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "rowwise_adagrad": RowwiseAdagrad, "adam": Adam}


class Data(NamedTuple):
    """Which data set, and how it is read: plain values, as in `Settings`."""

    name: str = "flights"
    paths: tuple[str, ...] = ()
    rows: int = 500_000
    on_error: str = "skip"
    max_malformed: float = 0.01


class Checkpoints(NamedTuple):
    """Where a run's checkpoints are, and how often one is made: plain values, as in `Settings`. Without a folder none
    is made."""

    folder: Path | None = None
    every: int = 1000
    resume: bool = False
    rows: str | None = None
    """Folder or URL for the service's checkpoints; None: they are in the trainer's."""
    rewind: bool = False

    def check(self) -> None:
        """Raises InvalidArgument for options that need a folder, and for a folder that has another run's
        checkpoints."""
        if self.folder is None:
            if self.resume or self.rewind or self.rows is not None:
                raise InvalidArgument("--resume, --rewind and --service-checkpoints need --checkpoint-dir FOLDER")
        elif not self.resume and (steps := TrainingCheckpoints.steps_in(self.folder)):
            raise InvalidArgument(
                f"--checkpoint-dir {self.folder} has the checkpoint of step {steps[-1]}: go on from it with --resume, "
                "or give an empty folder"
            )


@dataclass(frozen=True)
class Settings:
    """The settings as plain values, so that they can be sent to other processes. `python -m worker.train --help`
    explains them.

    batch_size: samples in a batch of one trainer.
    """

    data: Data = field(default_factory=Data)
    tables: Path | None = None
    dim: int = 16
    optimizer: str = "adagrad"
    lr: float = 0.05
    dense_lr: float = 0.02
    batch_size: int = 512
    swap_fraction: float = 0.5
    depth: int | Literal["auto"] = "auto"
    seed: int = 0
    threads: int = 1
    sparsify: TopK | None = None
    wire_dtype: str = "fp32"
    compress_ids: bool = False
    dense: DenseConfig = field(default_factory=lambda: DenseConfig(density=1.0))
    mode: str = "hybrid"
    max_staleness: int | None = None
    pull_ahead: int = 0
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def that_stay(self, ranks: int) -> dict[str, Any]:
        """Returns what must be the same when a run goes on from a checkpoint, by option. The service knows what its
        tables are like, and compares that itself."""
        data = self.data
        return {
            "--data": data.name,
            "--path": [str(path) for path in data.paths],
            "--rows": data.rows if data.name == "synthetic" else None,
            "--dim": self.dim,
            "--optimizer": self.optimizer,
            "--lr": self.lr,
            "--dense-lr": self.dense_lr,
            "--batch-size": self.batch_size * ranks,
            "--seed": self.seed,
            "--mode": self.mode,
            "--max-staleness": self.max_staleness,
            "--pull-ahead": self.pull_ahead,
            "--sparsify": None if self.sparsify is None else self.sparsify.density,
            "--wire-dtype": self.wire_dtype,
            "--dense-density": self.dense.density,
        }

    def open_source(self) -> Source:
        """Returns the data set. Every trainer opens it by itself and finds the same rows in the same order. Raises
        DataError for files that cannot be read."""
        data = self.data
        if data.name == "flights":
            from worker.data.flights import Flights

            return Flights()
        if data.name == "criteo":
            from worker.data.criteo import Criteo

            if not data.paths:
                raise InvalidArgument("--data criteo needs --path FILE (tab-separated, .gz too)")
            criteo = Criteo(matching(data.paths), on_error=data.on_error, max_malformed=data.max_malformed)
            criteo.check_files()
            return criteo
        if data.name == "synthetic":
            from worker.data.synthetic import Synthetic

            return Synthetic(rows=data.rows, seed=self.seed)
        raise InvalidArgument(f"--data {data.name!r}: choose flights, criteo or synthetic")

    def table_configs(self, source: Source) -> list[TableConfig]:
        """Returns the configurations of the source's tables."""
        return table_configs(source, self.dim, self.optimizer, self.lr, self.swap_fraction, self.tables)

    def check_modes(self, ranks: int) -> None:
        """Raises InvalidArgument for modes that cannot be combined, or that need more trainers."""
        if self.mode not in MODES:
            raise InvalidArgument(f"--mode {self.mode!r}: choose one of {', '.join(MODES)}")
        if ranks == 1 and (self.mode != MODES[0] or self.max_staleness is not None):
            raise InvalidArgument(
                "--mode and --max-staleness are for --trainers 2 or more: one trainer waits for nobody"
            )
        if self.mode == "synchronous" and (self.max_staleness is not None or self.pull_ahead):
            raise InvalidArgument(
                "--mode synchronous: every step trains on rows that have all gradients of the step before, so there is "
                "no --max-staleness and no --pull-ahead"
            )

    def mode_of(self, group: Group) -> Mode:
        """Returns the mode of the embeddings of one trainer of the group."""
        if self.mode == "synchronous":
            return Synchronous(group)
        return ASYNCHRONOUS if self.max_staleness is None else Bounded(group, self.max_staleness)


def table_configs(
    source: Source, dim: int, optimizer: str, lr: float, swap_fraction: float, overrides: Path | None
) -> list[TableConfig]:
    """Returns one configuration for each table that the source's features use. overrides: YAML, {table: {field:
    value}}."""
    if optimizer not in OPTIMIZERS:
        raise ConfigError(f"--optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    names = list(dict.fromkeys(feature.table for feature in source.features))
    special = _overrides(overrides) if overrides else {}
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


def _overrides(path: Path) -> dict[str, dict[str, Any]]:
    found = yaml_file.load(path) or {}
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
        raise ConfigError(f"--tables {path}: give {{table: {{field: value}}}}, as in `user: {{dim: 8}}`")
    return found


def batches_ahead(depth: str) -> int | Literal["auto"]:
    """Returns the value of --depth for a `Prefetcher`."""
    if depth == "auto":
        return "auto"
    if not depth.isdecimal():
        raise InvalidArgument(f'--depth {depth!r}: a number of batches, or "auto"')
    return int(depth)
