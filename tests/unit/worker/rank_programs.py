"""What the ranks of `test_ranks` do. Each writes its process number into `folder` first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from ps.errors import InvalidArgument
from worker.train.ranks import Meeting

FOR_EVER_S = 10_000


def begin(meeting: Meeting, folder: Path, patience_s: float = 300.0) -> None:
    (folder / str(os.getpid())).touch()
    meeting.join(patience_s)
    dist.barrier()


def exchange(meeting: Meeting) -> float:
    total = torch.tensor([float(meeting.rank)])
    dist.all_reduce(total)
    return float(total)


def sum_of_ranks(meeting: Meeting, folder: Path) -> tuple[int, int, float]:
    begin(meeting, folder)
    return meeting.rank, meeting.ranks, exchange(meeting)


def second_refuses(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder)
    if meeting.rank == 1:
        raise InvalidArgument("learning rate -1.0: make it positive")
    exchange(meeting)


def second_has_a_bug(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder)
    if meeting.rank == 1:
        _ = 1 / 0
    exchange(meeting)


def second_leaves(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder)
    if meeting.rank == 1:
        os._exit(3)
    exchange(meeting)


def second_is_killed(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder)
    if meeting.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    exchange(meeting)


def first_ignores_the_end(meeting: Meeting, folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin(meeting, folder)
    if meeting.rank == 1:
        raise InvalidArgument("no more")
    time.sleep(FOR_EVER_S)


def second_sleeps(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder, patience_s=3.0)
    if meeting.rank == 1:
        time.sleep(FOR_EVER_S)
    exchange(meeting)


def both_sleep(meeting: Meeting, folder: Path) -> None:
    begin(meeting, folder)
    time.sleep(FOR_EVER_S)


def started_elsewhere(folder: Path) -> subprocess.Popen[bytes]:
    """A process that has `both_sleep` as its ranks."""
    root = Path(__file__).parents[3]  # where `worker` is: no installation has it
    return subprocess.Popen([sys.executable, __file__, str(folder)], env=os.environ | {"PYTHONPATH": str(root)})


if __name__ == "__main__":
    import rank_programs

    from worker.train.ranks import run_ranks

    run_ranks(2, rank_programs.both_sleep, Path(sys.argv[1]))
