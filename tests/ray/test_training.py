"""`python -m worker.train` as a user runs it, on shards of its own with a disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@contextmanager
def training(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own, as a terminal would have it, with a directory of its own for temporary files."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"COLUMNS": "160", "TMPDIR": str(folder), "RAY_TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "worker.train", "--data", "synthetic", "--local", "2", "--dim", "4", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def scratch(folder: Path) -> list[Path]:
    return sorted(folder.glob("embedding-ps-*"))


def test_half_of_the_rows_are_on_disk_and_the_disk_is_gone_at_the_end(tmp_path: Path) -> None:
    with training(tmp_path, "--rows", "20000") as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert f"rows on disk: below {tmp_path}/embedding-ps-" in printed
    for table in ("C1", "C26"):
        rows = [int(n.replace(",", "")) for n in re.findall(rf"│ {table} +│ (?:hot|disk) +│ ([\d,]+)", printed)]
        assert len(rows) == 2
    found = {tier: re.findall(rf"│ {tier} +│ ([\d,]+)", printed) for tier in ("hot", "disk")}
    hot, disk = (sum(int(n.replace(",", "")) for n in found[tier]) for tier in ("hot", "disk"))
    assert 0.35 < disk / (hot + disk) <= 0.5, printed
    assert re.search(r"raised +┃ demoted +┃ late", printed)
    assert re.search(r"steps prepared on a shard: [1-9]", printed)
    assert not scratch(tmp_path)


def test_a_disk_that_was_asked_for_has_a_folder_for_each_shard_and_stays(tmp_path: Path) -> None:
    with training(tmp_path, "--rows", "2000", "--disk", str(tmp_path / "ssd")) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert sorted(folder.name for folder in (tmp_path / "ssd").iterdir()) == ["shard-0", "shard-1"]
    assert not scratch(tmp_path)


def test_two_trainers_and_what_they_saved(tmp_path: Path) -> None:
    options = (
        "--rows",
        "5000",
        "--trainers",
        "2",
        "--sparsify",
        "0.3",
        "--dense-density",
        "0.1",
        "--wire-dtype",
        "fp16",
    )
    with training(tmp_path, *options) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "5,000 samples in" in printed
    assert "bytes on the wire, all 2 trainers" in printed
    for what in ("gradients of rows, pushed", "gradients of the dense part"):
        factor = re.search(rf"{what}: [\d.]+ [kM]?B of [\d.]+ [kM]?B as whole float32 = 1/([\d.]+)", printed)
        assert factor is not None
        assert float(factor[1]) > 1.5
    assert not scratch(tmp_path)


def test_killed_with_its_shards_it_goes_on_in_new_ones(tmp_path: Path) -> None:
    saved = ("--rows", "12000", "--batch-size", "200", "--checkpoint-dir", str(tmp_path / "run"), "--checkpoint-every")
    with training(tmp_path, *saved, "5") as process:
        assert process.stdout is not None
        assert any("checkpoint at step 10: " in line for line in process.stdout), "it has ended instead of training"
        os.killpg(process.pid, signal.SIGKILL)
    with training(tmp_path, *saved, "1000", "--resume") as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert (step := re.search(r"/run: resumed at step (\d+)", printed)), printed
    assert f"{12_000 - 200 * int(step[1]):,} samples in" in printed
    assert "checkpoint at step 60: " in printed


@pytest.mark.parametrize("trainers", ["1", "2"])
def test_ctrl_c_takes_the_temporary_disk_along(trainers: str, tmp_path: Path) -> None:
    with training(tmp_path, "--rows", str(10**9), "--trainers", trainers) as process:
        assert process.stdout is not None
        assert any("rows on disk: below" in line for line in process.stdout), "it has ended instead of training"
        assert len([*tmp_path.glob("embedding-ps-*/shard-*/rocksdb/CURRENT")]) == 2
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left of its group
    assert not scratch(tmp_path)
