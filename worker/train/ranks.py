"""Runs several trainer processes on this host: they start together, and end together when one of them fails.

    run_ranks(2, program, *arguments)  ->  [program(Meeting(0, 2, port), *arguments), program(Meeting(1, 2, port), ...)]

The starter of `torch.multiprocessing` ends the others too, but reports the error that it finds first, which is often
that of a rank that only lost its partner. Here a rank reports its error, with the time, before it closes its
connections, so the first error is raised; an error of this project is one line.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # of its public names, in a way mypy cannot see

from ps.errors import PsError
from ps.seconds import seconds
from worker.data.errors import DataError

HOST = "127.0.0.1"
PATIENCE_S = 300.0
"""Seconds that a rank waits for the others before it gives up."""
GRACE_S = 5.0
"""Seconds from SIGTERM to SIGKILL."""
SETTLE_S = 1.0
"""Seconds that other ranks may take to report after the first error."""


class TrainerFailed(Exception):
    """One of several trainers ended early; the others were ended with it."""


@dataclass(frozen=True)
class Meeting:
    """This rank's place among `ranks`, and where they meet: at `port` of this host, or, if None, where `torchrun`
    says."""

    rank: int
    ranks: int
    port: int | None = None

    @staticmethod
    def of_environment() -> Meeting | None:
        """Returns the place that `torchrun` gave this process; None if `torchrun` did not start it."""
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            return None
        return Meeting(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))

    def join(self, patience_s: float = PATIENCE_S) -> None:
        """Makes the default process group, with gloo."""
        patience = timedelta(seconds=seconds(patience_s, "patience_s"))
        if self.port is None:
            dist.init_process_group("gloo", timeout=patience)
            return
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name may resolve to nothing
        store = TCPStore(HOST, self.port, timeout=patience)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.ranks, timeout=patience)


@dataclass(frozen=True)
class _Report:
    """How a rank ended. at_s: the time of the host's monotonic clock, which its processes share."""

    at_s: float
    value: Any = None
    error: str | None = None


def run_ranks(ranks: int, program: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Runs program(meeting, *arguments) in `ranks` new processes, and returns what they return, in the order of ranks.

    Arguments and results are pickled. Raises TrainerFailed with the error that came first. However it ends, no process
    stays.
    """
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # here, so that no port can be taken
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[SpawnProcess] = []
    try:
        for rank in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            pipes.append(ours)
            meeting = Meeting(rank, ranks, store.port)
            process = context.Process(target=_serve, args=(meeting, theirs, program, arguments), name=f"trainer-{rank}")
            process.start()
            processes.append(process)
            theirs.close()
        return _collect(pipes, processes)
    finally:
        _end(processes)
        for pipe in pipes:
            pipe.close()


def _collect(pipes: Sequence[Connection], processes: Sequence[SpawnProcess]) -> list[Any]:
    reports: dict[int, _Report] = {}
    while len(reports) < len(pipes):
        reports |= _reports(pipes, reports, None)
        if any(report.error is not None for report in reports.values()):
            reports |= _reports(pipes, reports, SETTLE_S)  # the cause may arrive after its effect
            failed = {rank: report for rank, report in reports.items() if report.error is not None}
            first = min(failed, key=lambda rank: failed[rank].at_s)
            raise TrainerFailed(f"trainer {first} of {len(pipes)}: {failed[first].error or _fate(processes[first])}")
    for process in processes:
        process.join(GRACE_S)
    return [reports[rank].value for rank in range(len(pipes))]


def _reports(pipes: Sequence[Connection], known: Mapping[int, _Report], timeout_s: float | None) -> dict[int, _Report]:
    """Returns the reports that have come, by rank, of ranks that had not reported yet."""
    waiting = {rank: pipe for rank, pipe in enumerate(pipes) if rank not in known}
    ready = wait(list(waiting.values()), timeout_s)
    return {rank: _receive(pipe) for rank, pipe in waiting.items() if pipe in ready}


def _receive(pipe: Connection) -> _Report:
    try:
        report: _Report = pipe.recv()
    except EOFError:  # it ended without a word: nothing another rank did brings that about, so it came first
        return _Report(at_s=0.0, error="")
    return report


def _fate(process: SpawnProcess) -> str:
    process.join(GRACE_S)
    code = process.exitcode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}; where nobody did that, the host may be out of memory"
    return f"ended with exit code {code} and said nothing"


def _end(processes: Sequence[SpawnProcess]) -> None:
    """Ends the processes that are left: they have GRACE_S seconds together, then they get SIGKILL."""
    for stop in (SpawnProcess.terminate, SpawnProcess.kill):
        until = time.monotonic() + GRACE_S
        for process in processes:
            if process.is_alive():
                stop(process)
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))


def _serve(meeting: Meeting, pipe: Connection, program: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the ranks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        report = _Report(0.0, program(meeting, *arguments))
    except (PsError, DataError) as error:
        report = _Report(time.monotonic(), error=f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001  whatever it is, the parent is the one to tell it
        report = _Report(time.monotonic(), error=traceback.format_exc())
    with suppress(BrokenPipeError):  # the parent has heard of another rank's error first
        pipe.send(report)
    pipe.close()
    if dist.is_initialized() and report.error is None:
        dist.destroy_process_group()
    # What is left of a rank that failed may wait for its partners: see `_end`.


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
