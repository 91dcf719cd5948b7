"""What users may rely on, written out: a change here is a change for them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import ps
from ps import nn
from ps.cli import app

PS = [
    *("CheckpointCorrupt", "RolledBack"),
    "DiskConfig",
    "LimitsConfig",
    "CheckpointConfig",
    "LogConfig",
    "MemoryConfig",
    "NetworkConfig",
    "PerformanceConfig",
    "WatchingConfig",
    "FTRL",
    "SGD",
    "Adagrad",
    "Adam",
    "Always",
    "ByImportance",
    "Client",
    "ConfigError",
    "Constant",
    "CorruptRow",
    "CorruptWrite",
    "CountThreshold",
    "DataLoss",
    "DeadlineExceeded",
    "DimensionMismatch",
    "DiskError",
    "DiskFull",
    "DtypeMismatch",
    "DuplicateIds",
    "Evicted",
    "Fp16",
    "Importance",
    "InternalError",
    "InvalidArgument",
    "LengthMismatch",
    "LogCorrupt",
    "LogFailed",
    "NonFiniteGradient",
    "Normal",
    "NotFound",
    "Placement",
    "PooledBags",
    "PooledGradients",
    "Probability",
    "PsError",
    "ResourceExhausted",
    "Round",
    "RowwiseAdagrad",
    "Selected",
    "SequenceConflict",
    "Service",
    "ServiceConfig",
    "StaleRouting",
    "ShardPoisoned",
    "StateLost",
    "Step",
    "StepNotFound",
    "TableConfig",
    "TableExists",
    "TableNotFound",
    "TableRows",
    "TensorTrain",
    "Unavailable",
    "Uniform",
    "Versions",
    "connect",
    "launch",
]
NN = [
    *("Bags", "Batch", "EmbeddingBagCollection", "Feature", "Prefetcher", "TensorTrainEmbeddingBag"),
    *("Hold", "Relaxed", "Sparsifier", "Threshold", "TopK"),
    *("Asynchronous", "Bounded", "Group", "Synchronous", "TrainingCheckpoints"),
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(ps.__all__) == sorted(PS)
    assert sorted(nn.__all__) == sorted(NN)


@pytest.mark.parametrize(("module", "name"), [*(("ps", name) for name in PS), *(("ps.nn", name) for name in NN)])
def test_every_public_name_can_be_imported(module: str, name: str) -> None:
    """In a package that imports lazily, a name can be listed and missing."""
    found = getattr(importlib.import_module(module), name)
    assert found.__name__ == name
    assert name in dir(importlib.import_module(module))


@pytest.mark.parametrize("module", [ps, nn])
def test_an_unknown_name_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense  # type: ignore[attr-defined]


def test_every_error_is_a_public_name() -> None:
    assert set(ps.errors.all_errors()) <= set(PS)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running the code."""
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import ps", {"torch", "ray", "numba", "grpc", "pydantic", "numpy"}),
        ("import ps; ps.PsError", {"torch", "ray", "numba", "grpc", "pydantic", "numpy"}),
        ("import ps; ps.TableConfig(name='t', dim=4)", {"torch", "ray", "numba", "grpc"}),
        ("import ps; ps.connect, ps.Client, ps.Step", {"torch", "ray", "prometheus_client", "typer"}),
        ("import ps.server.shard_server", {"torch", "ray", "typer"}),
        ("import ps.cluster.inprocess", {"torch", "ray", "typer"}),
        ("import ps.cli", {"torch", "ray", "numba", "grpc"}),
        ("import ps.nn", {"torch", "ray", "numba", "grpc", "pandas"}),
        ("import worker", {"torch", "ray", "numba", "grpc", "pandas"}),
    ],
    ids=["ps", "errors", "config", "client", "server", "inproc", "psctl", "nn", "worker"],
)
def test_an_import_loads_no_more_than_it_needs(code: str, absent: set[str]) -> None:
    assert not loaded_by(code) & absent


def test_without_torch_the_torch_side_says_what_to_install() -> None:
    script = "import sys; sys.modules['torch'] = None; import ps; ps.connect; import ps.nn"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "ImportError: ps.nn needs torch, which is not installed: pip install 'embedding-ps[torch]'" in run.stderr


def test_a_client_loads_nothing_of_the_service() -> None:
    script = "import sys, ps\nps.connect, ps.Client\nprint(*(name for name in sys.modules if name.startswith('ps.')))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    rooms = {name.split(".")[1] for name in run.stdout.split()}
    assert not rooms & {"server", "shard", "table", "storage", "optim", "cluster", "cli"}


def test_psctl_has_exactly_these_commands_in_this_order() -> None:
    psctl = get_command(app)
    assert isinstance(psctl, TyperGroup)
    commands = ["up", "down", "status", "top", "tables", "doctor", "restore", "size", "train", "checkpoint", "config"]
    assert list(psctl.commands) == commands
