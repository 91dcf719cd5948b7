"""The disk tier: batch reads against the binding alone, writes, bytes a row, and the filter in front of it.

All readers read the same files through the same block cache, other rows at every turn. The binding is given its keys
sorted and ready as `bytes`, and what it returns is thrown away; ours has to make the keys, check every row and put all
into arrays. "warm": the files are in the page cache as far as RAM goes. "cold": they have been dropped from it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from rocksdict import Rdict

from benchmarks.harness.data import batches, generator, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.kernels import warm_up
from ps.storage.disk.codec import key_order, keys_of
from ps.storage.disk.database import Disk
from ps.storage.disk.filter import IdFilter
from ps.storage.disk.tier import PIECE_ROWS, DiskTier
from ps.storage.tier import Records
from ps.wire.allocator import keep_freed_memory

THREADS = 4
CACHE_BYTES = 256 << 20
WRITE_ROWS = 32_768
"""Rows of a write: about 10 MB, as `DiskTier.write` advises."""
COLD_ROUNDS = 5


def run(report: Report, sizes: Sizes) -> None:
    """Measures rows of dim 64 with one float of state, which are 260 bytes."""
    warm_up()
    keep_freed_memory()  # as in a shard's process
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    _filter(report, sizes, ids_N)
    row_bytes = 4 * (sizes.dim + 1)
    with (
        tempfile.TemporaryDirectory(prefix="disk-bench-") as folder,
        closing(Disk(Path(folder) / "ours", CACHE_BYTES, THREADS)) as disk,
    ):
        tier = disk.table("t", [row_bytes])
        _writes(report, disk, tier, ids_N, row_bytes)
        report.add("full", "bytes_per_row_on_disk", disk.bytes_on_disk() / len(tier))
        report.add("full", "bytes_vs_row_bytes", disk.bytes_on_disk() / len(tier) / row_bytes)
        ids = batches(rng, ids_N, sizes.batch)
        _reads(report, sizes, "warm", tier, ids, lambda: None)
        files = Path(folder) / "ours" / "rocksdb"
        _reads(report, sizes, "cold", tier, ids, lambda: _drop_from_page_cache(files))
        report.add("full", "ram_bytes_per_row", sum(disk.memory_usage().values()) / len(tier))
        _overwrites(report, sizes, tier, ids, row_bytes)
    _db_bench(report, sizes, row_bytes)


def _reads(
    report: Report, sizes: Sizes, case: str, tier: DiskTier, ids: Callable[[int], Ids], prepare: Callable[[], None]
) -> None:
    binding: Rdict = tier.family._rows  # the same column family: the same files, the same cache
    pool = ThreadPoolExecutor(THREADS)

    def ready(turn: int) -> Ids:
        prepare()
        return ids(turn)

    def ready_keys(turn: int) -> list[bytes]:
        prepare()
        part_N = ids(turn)
        return keys_of(part_N[key_order(part_N)])

    def plain(keys: list[bytes]) -> object:
        return binding.get(keys)  # type: ignore[arg-type]  # of the stub

    def plain_threads(keys: list[bytes]) -> object:
        return list(pool.map(plain, (keys[i : i + PIECE_ROWS] for i in range(0, len(keys), PIECE_ROWS))))

    contenders = {
        "ours": Contender(tier.read, ready),
        "plain": Contender(plain, ready_keys),
        f"plain_{THREADS}_threads": Contender(plain_threads, ready_keys),
    }
    rounds = interleave(sizes.rounds if case == "warm" else min(sizes.rounds, COLD_ROUNDS), contenders)
    pool.shutdown()
    for name in contenders:
        report.add(f"{case}_{name}", "rows_per_s", rounds.per_second(name, sizes.batch))
    report.add(f"{case}_ours", "vs_plain", rounds.speed_ratio("ours", "plain"))
    report.add(f"{case}_ours", "vs_plain_threads", rounds.speed_ratio("ours", f"plain_{THREADS}_threads"))


def _writes(report: Report, disk: Disk, tier: DiskTier, ids_N: Ids, row_bytes: int) -> None:
    """Writes new rows until all are there, then waits until RocksDB has compacted its files."""
    started, speeds = time.perf_counter(), []
    for records in _random_records(ids_N, row_bytes):
        before = time.perf_counter()
        tier.write(records, held=0)
        speeds.append(len(records) / (time.perf_counter() - before))
    report.add("write_new", "rows_per_s", speeds)
    tier.flush()
    _wait_for_compaction(tier)
    report.add("write_new_and_compact", "rows_per_s", len(ids_N) / (time.perf_counter() - started))


def _overwrites(report: Report, sizes: Sizes, tier: DiskTier, ids: Callable[[int], Ids], row_bytes: int) -> None:
    speeds = []
    for turn in range(sizes.rounds):
        for records in _random_records(ids(turn), row_bytes):
            before = time.perf_counter()
            tier.write(records, held=len(records))
            speeds.append(len(records) / (time.perf_counter() - before))
    report.add("overwrite", "rows_per_s", speeds)


def _random_records(ids_N: Ids, row_bytes: int) -> Iterator[Records]:
    """Draws small normal numbers, which compress as little as trained rows do."""
    rng = generator()
    for start in range(0, len(ids_N), WRITE_ROWS):
        part_N = ids_N[start : start + WRITE_ROWS]
        rows = rng.standard_normal((len(part_N), row_bytes // 4), dtype=np.float32) * np.float32(0.01)
        stamps_N = np.full(len(part_N), start, np.uint32)
        yield Records(part_N, rows.view(np.uint8), rng.random(len(part_N), dtype=np.float32), stamps_N)


def _wait_for_compaction(tier: DiskTier) -> None:
    properties = ("rocksdb.num-running-compactions", "rocksdb.compaction-pending", "rocksdb.num-running-flushes")
    while any(tier.family._rows.property_int_value(name) for name in properties):
        time.sleep(0.02)


def _drop_from_page_cache(folder: Path) -> None:
    """Drops the pages of these files from the page cache; other files keep theirs, and no privilege is needed."""
    for file in folder.glob("*.sst"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _filter(report: Report, sizes: Sizes, ids_N: Ids) -> None:
    rng = generator()
    absent_N = random_ids(np.random.default_rng(1), min(sizes.rows, 1_000_000))
    for case, expected in (("filter_sized", len(ids_N)), ("filter_grown", len(ids_N) // 38)):
        with closing(IdFilter(expected)) as found:
            started = time.perf_counter()
            for start in range(0, len(ids_N), sizes.batch):
                found.add(ids_N[start : start + sizes.batch])
            report.add(case, "add_million_per_s", len(ids_N) / (time.perf_counter() - started) / 1e6)
            rounds = interleave(
                sizes.rounds,
                {
                    "present": Contender(found.may_contain, batches(rng, ids_N, sizes.batch)),
                    "absent": Contender(found.may_contain, batches(rng, absent_N, sizes.batch)),
                },
            )
            for name in rounds.seconds:
                report.add(case, f"{name}_million_per_s", rounds.per_second(name, sizes.batch / 1e6))
            report.add(case, "mistakes_percent", 100 * (float(found.may_contain(absent_N).mean()) + 1e-9))
            report.add(case, "bytes_per_id", found.nbytes / len(ids_N))


def _db_bench(report: Report, sizes: Sizes, row_bytes: int) -> None:
    """Runs RocksDB's own benchmark on a database of its own with the same sizes."""
    if not shutil.which("db_bench"):
        print(
            "# disk: no db_bench here (Debian has it in rocksdb-tools), so no figure of RocksDB's own", file=sys.stderr
        )
        return
    with tempfile.TemporaryDirectory(prefix="disk-bench-") as folder:
        command = ["db_bench", "--benchmarks=fillrandom,compact,multireadrandom", f"--db={folder}", "--disable_wal=1"]
        command += [f"--num={sizes.rows}", f"--reads={5 * sizes.batch}", f"--value_size={row_bytes + 13}"]
        command += ["--key_size=16", f"--batch_size={PIECE_ROWS}", "--multiread_batched=1", "--compression_type=none"]
        command += [f"--cache_size={CACHE_BYTES}", "--bloom_bits=10", "--block_size=8192"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"^multireadrandom .* (\d+) ops/sec", done.stdout, re.MULTILINE)
        if found:
            report.add("db_bench_1_thread", "rows_per_s", float(found[1]))
