"""Trainers and shards that are killed at any moment: the run that is resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported import contents

import ps
from ps.nn import TrainingCheckpoints
from ps.nn.dense import DenseConfig
from ps.nn.sparsify.thresholds import TopK
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.waiting import until
from worker.report.shown import Share
from worker.train.ranks import run_ranks
from worker.train.run import ALONE, run
from worker.train.settings import Checkpoints, Data, Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]  # where `worker` is: no installation has it
STEPS, BATCH, SHARDS = 40, 120, 2
LIMIT_S = 60.0


def asked(seed: int, trainers: int) -> Settings:
    settings = Settings(
        data=Data("synthetic", rows=STEPS * BATCH),
        dim=4,
        optimizer="adam",
        batch_size=BATCH // trainers,
        seed=seed,
        sparsify=TopK(0.3),
        wire_dtype="fp16",
        swap_fraction=0.0,
    )
    return settings if trainers == 1 else replace(settings, mode="synchronous", dense=DenseConfig(density=0.2))


def options(seed: int, trainers: int, address: str, folder: Path) -> list[str]:
    """The same settings for the command line."""
    said = f"--data synthetic --rows {STEPS * BATCH} --dim 4 --optimizer adam --batch-size {BATCH} --seed {seed}"
    said += f" --sparsify 0.3 --wire-dtype fp16 --swap-fraction 0 --trainers {trainers} --service {address}"
    said += " --mode synchronous --dense-density 0.2" if trainers > 1 else ""
    return [*said.split(), "--checkpoint-every", "3", "--checkpoint-dir", str(folder)]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a session of its own, which is killed with all that it has started."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def killed(seed: int, trainers: int, folder: Path, at: int) -> None:
    """Kills trainers and shards when so many pushes are applied."""
    with started(str(Path(__file__).parent / "serving.py"), str(SHARDS)) as service:
        assert service.stdout
        address = service.stdout.readline().strip()
        command = ["-m", "worker.train", *options(seed, trainers, address, folder)]
        with started(*command) as trainer, ps.connect(address) as client:
            until(lambda: applied(client, trainer) >= at, LIMIT_S)


def applied(client: ps.Client, trainer: subprocess.Popen[str]) -> int:
    """How many steps of the trainers have been applied on the first shard."""
    assert trainer.poll() is None, trainer.communicate()[0]
    return int(client.stats()["shards"][0]["staleness"]["pushes"])


def trained(settings: Settings, trainers: int, address: str) -> list[Share]:
    if trainers == 1:
        return [run(ALONE, settings, address)]
    shares: list[Share] = run_ranks(trainers, run, settings, address)
    return shares


@pytest.mark.parametrize(("seed", "trainers"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_killed_at_a_random_step_and_resumed_it_ends_with_the_same_bits(
    tmp_path: Path, seed: int, trainers: int
) -> None:
    at = random.Random(seed).randint(2, STEPS - 2)
    killed(seed, trainers, tmp_path, at)
    steps, settings = TrainingCheckpoints.steps_in(tmp_path), asked(seed, trainers)
    print(f"killed at step {at} or a little later; checkpoints of steps {steps}")
    assert bool(steps) or at < 6
    resuming = replace(settings, checkpoints=Checkpoints(tmp_path, every=3, resume=True))
    with LoopbackCluster(SHARDS, QUIET) as one, LoopbackCluster(SHARDS, QUIET) as other:
        straight, resumed = trained(settings, trainers, one.address), trained(resuming, trainers, other.address)
        for mine, theirs in zip(straight, resumed, strict=True):
            assert mine.dense_digest == theirs.dense_digest
            np.testing.assert_array_equal(mine.probabilities_N, theirs.probabilities_N)
        with ps.connect(one.address) as client, ps.connect(other.address) as client_again:
            for table in client.tables():
                for mine, theirs in zip(contents(client, table), contents(client_again, table), strict=True):
                    np.testing.assert_array_equal(mine, theirs)
