"""What a checkpoint costs: pushes beside it, memory, the disk's speed, increments, and how fast rows are restored.

One shard is a process of its own and this process is its client. Folders are among the temporary files: set TMPDIR to
measure another disk. A plain write of as many bytes, with fsync, follows each checkpoint, in the same folder.

    full_idle     nobody pushes
    full_loaded   two threads push without a pause
    increment     after pushes of a hundredth of the rows, on a shard without `memory.ram_bytes`; `increment_bounded` on
                  one with it, whose clock stands still while no rows come
    restored      a new shard, from a full one; `restored_chain` from that and an increment
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import numpy as np

import ps
from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import rss_bytes
from benchmarks.harness.processes import Child
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.cli.sizing.demand import Demand
from ps.cli.sizing.nodes import suggested

TABLE = "t"
THREADS = 2
PUSH_SHARE = 10
"""A push has this share of the ids of a batch, so that many are made while a checkpoint is."""
ROUNDS = 3
CHANGED = 100
"""One row of so many changes before the increment."""
PIECE_BYTES = 1 << 20
SAMPLE = 10_000
QUIET = ps.ServiceConfig().having(watching={"metrics": False})


def run(report: Report, sizes: Sizes) -> None:
    """Makes checkpoints of a table with `checkpoint_rows` rows, and restores one."""
    ids_N = random_ids(generator(), sizes.checkpoint_rows)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        config = _config(sizes)
        client, server = stack.enter_context(one_shard(config))
        started = rss_bytes(server.pid)
        client.create_table(_table(sizes))
        fill(client, TABLE, ids_N, sizes.dim, sizes.batch)
        load = _Load(client, ids_N, sizes)
        idle, loaded = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for number in range(min(ROUNDS, sizes.rounds)):
            _add(idle, _idle(client, folder / f"idle-{number}"))
            _add(loaded, _loaded(client, server, load, folder / f"loaded-{number}", started, config))
        for case, figures in (("full_idle", idle), ("full_loaded", loaded)):
            for metric, values in figures.items():
                report.add(case, metric, values)
        _increment(report, "increment_bounded", client, load, folder / "bounded", sizes)
        _remove(folder / "bounded")
        stack.close()
        with one_shard(QUIET) as (client, _):
            client.create_table(_table(sizes))
            fill(client, TABLE, ids_N, sizes.dim, sizes.batch)
            sample_N = ids_N[:SAMPLE]
            before_ND = client.pull(TABLE, sample_N)
            full, both = _increment(report, "increment", client, _Load(client, ids_N, sizes), folder / "chain", sizes)
            after_ND = client.pull(TABLE, sample_N)
        _restore(report, "restored", full, sizes, sample_N, before_ND)
        _restore(report, "restored_chain", both, sizes, sample_N, after_ND)


def _config(sizes: Sizes) -> ps.ServiceConfig:
    """Returns settings with the bound of memory that `psctl size` suggests for so many rows."""
    return suggested(Demand([(_table(sizes), sizes.checkpoint_rows)], QUIET, step_ids=sizes.batch))


def _table(sizes: Sizes) -> ps.TableConfig:
    return ps.TableConfig(name=TABLE, dim=sizes.dim)


class _Load:
    """Pushes as fast as they are answered."""

    def __init__(self, client: ps.Client, ids_N: Ids, sizes: Sizes) -> None:
        self._client = client
        size = max(sizes.batch // PUSH_SHARE, 1)
        self._ids = batches(generator(), ids_N, size)
        self._grads_ND = gradients(generator(), size, sizes.dim)
        self._turn = 0

    def push(self) -> float:
        """Pushes once; returns the seconds that it took."""
        self._turn += 1
        ids_N = self._ids(self._turn)
        started = time.perf_counter()
        self._client.push(TABLE, ids_N, self._grads_ND)
        return time.perf_counter() - started

    @contextmanager
    def under_way(self) -> Iterator[list[float]]:
        """Pushes on several threads until the end of the block; the seconds of each push are in the list then."""
        ended, seconds = Event(), list[float]()

        def push() -> None:
            while not ended.is_set():
                seconds.append(self.push())

        with ThreadPoolExecutor(THREADS) as pool:
            threads: list[Future[None]] = [pool.submit(push) for _ in range(THREADS)]
            try:
                yield seconds
            finally:
                ended.set()
            for thread in threads:
                thread.result()


def _add(to: dict[str, list[float]], figures: dict[str, float]) -> None:
    for metric, value in figures.items():
        to[metric].append(value)


def _idle(client: ps.Client, folder: Path) -> dict[str, float]:
    seconds = _timed(lambda: client.checkpoint(folder, full=True))
    nbytes = _bytes_of(folder)
    _remove(folder)
    return {"gb_per_s": nbytes / seconds / 1e9, "write_vs_disk": _plain_write_s(folder, nbytes) / seconds}


def _loaded(
    client: ps.Client, server: Child, load: _Load, folder: Path, started: int, config: ps.ServiceConfig
) -> dict[str, float]:
    with load.under_way() as alone:
        time.sleep(max(_plain_write_s(folder.parent / "settle", 64 << 20), 1.0))
    before = rss_bytes(server.pid)
    Path(f"/proc/{server.pid}/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    with load.under_way() as beside:
        seconds = _timed(lambda: client.checkpoint(folder, full=True))
    peak = _peak_bytes(server.pid)
    nbytes = _bytes_of(folder)
    _remove(folder)
    return {
        "push_p99_vs_without": _p99(beside) / _p99(alone),
        "push_speed_vs_without": float(np.mean(alone) / np.mean(beside)),
        "extra_ram_vs_shard": max(peak - before, 0) / before,
        "peak_vs_ram_bytes": (peak - started) / (config.memory.ram_bytes or 1),
        "write_vs_disk": _plain_write_s(folder, nbytes) / seconds,
        "pushes_beside": len(beside),
    }


def _increment(
    report: Report, case: str, client: ps.Client, load: _Load, folder: Path, sizes: Sizes
) -> tuple[Path, Path]:
    first = client.checkpoint(folder, full=True)
    full = _bytes_of(folder)
    for _ in range(max(sizes.checkpoint_rows // CHANGED // max(sizes.batch // PUSH_SHARE, 1), 1)):
        load.push()
    started = time.perf_counter()
    second = client.checkpoint(folder)
    seconds = time.perf_counter() - started
    nbytes = _bytes_of(folder) - full
    report.add(case, "incremental_bytes_vs_full", nbytes / full)
    report.add(case, "seconds", seconds)
    report.add(case, "full_bytes_per_row", full / sizes.checkpoint_rows)
    return folder / first, folder / second


def _restore(report: Report, case: str, checkpoint: Path, sizes: Sizes, sample_N: Ids, expected_ND: object) -> None:
    with one_shard(QUIET) as (client, _):
        seconds = _timed(lambda: client.restore(checkpoint))
        report.add(case, "restore_rows_per_s", sizes.checkpoint_rows / seconds)
        np.testing.assert_array_equal(client.pull(TABLE, sample_N), expected_ND)
        if client.size(TABLE) != sizes.checkpoint_rows:
            raise ValueError(f"{client.size(TABLE):,} rows of {sizes.checkpoint_rows:,} were restored")


def _timed(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def _plain_write_s(folder: Path, nbytes: int) -> float:
    """Returns the seconds in which so many bytes are written to one file and synced."""
    folder.mkdir(exist_ok=True)
    piece, path = os.urandom(PIECE_BYTES), folder / "plain"
    with path.open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(-(-nbytes // PIECE_BYTES)):
            file.write(piece)
        os.fsync(file.fileno())
        seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _bytes_of(folder: Path) -> int:
    """Returns the bytes of all files, one with several names once."""
    found = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sum(found.values())


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def _p99(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99))


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
