"""`psctl doctor` checks the disk that shards will use: whether there is room, whether it can be written, and how fast
it is."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ps.cli.checks.findings import Finding, fail, ok, warn
from ps.cli.screens.numbers import count, nbytes
from ps.runtime.clock import SYSTEM_CLOCK
from ps.runtime.entropy import SYSTEM_ENTROPY

PROBE_BYTES, PIECE_BYTES = 32 << 20, 1 << 20
READS = 512
SLOW_WRITE, SLOW_READS = 100 << 20, 2_000
"""A disk that writes fewer bytes a second (with fsync), or reads fewer blocks a second, than this is called slow. These
are the figures of a slow SSD; a spinning disk does 200 reads a second."""


class Speed(NamedTuple):
    """The speed that was measured on one file."""

    write_bytes_per_s: float
    """Bytes a second of sequential writes, with fsync."""
    reads_per_s: float
    """Random reads of one block a second, on as many threads as a shard has. They bypass the page cache where the file
    system allows it."""


def disk(path: Path, shards: int, disk_bytes: int | None) -> Iterator[Finding]:
    """Makes all checks of `disk.path`."""
    folder = existing(path)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    wanted = shards * disk_bytes - taken(path) if disk_bytes else 0
    try:
        speed = measured(folder)
    except OSError as error:
        yield _refused(path, free, error)
        return
    says = f"{nbytes(free)} free below {path}"
    if free < wanted:
        yield fail(
            "disk",
            f"{says}, and {shards} shards may take {nbytes(wanted)} more",
            "a lower disk.max_bytes, or another disk",
        )
    elif not disk_bytes:
        yield warn("disk", f"{says}, and shards have no bound there", "set disk.max_bytes: psctl size says how much")
    else:
        yield ok("disk", says)
    figures = f"writes {nbytes(speed.write_bytes_per_s)}/s, reads {count(speed.reads_per_s)} blocks/s at random"
    if speed.write_bytes_per_s < SLOW_WRITE or speed.reads_per_s < SLOW_READS:
        yield warn(
            "disk speed",
            f"too slow: {figures}; rows want {nbytes(SLOW_WRITE)}/s and {count(SLOW_READS)} blocks/s",
            "disk.path on a local SSD",
        )
    else:
        yield ok("disk speed", figures)


def measured(folder: Path) -> Speed:
    """Writes and reads a temporary file without a name in the folder, and returns its speed. Raises OSError, for
    example if the disk is full."""
    from ps.runtime.places import IO_THREADS
    from ps.storage.disk.options import BLOCK_BYTES

    piece = SYSTEM_ENTROPY.randbytes(PIECE_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = SYSTEM_CLOCK.monotonic()
        for _ in range(PROBE_BYTES // PIECE_BYTES):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        written = SYSTEM_CLOCK.monotonic() - started
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        places = SYSTEM_ENTROPY.sample(range(PROBE_BYTES // BLOCK_BYTES), READS)
        with _past_the_cache(file.fileno()) as reader, ThreadPoolExecutor(IO_THREADS) as pool:
            started = SYSTEM_CLOCK.monotonic()
            list(pool.map(lambda place: _read(reader, place * BLOCK_BYTES, BLOCK_BYTES), places))
            read = SYSTEM_CLOCK.monotonic() - started
    return Speed(PROBE_BYTES / written, READS / read)


@contextmanager
def _past_the_cache(descriptor: int) -> Iterator[int]:
    """Opens the file again for direct reads, where the file system has them."""
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT)
    except OSError:  # tmpfs, for example
        yield descriptor
        return
    try:
        yield direct
    finally:
        os.close(direct)


def _read(descriptor: int, offset: int, n: int) -> None:
    with mmap.mmap(-1, n) as aligned:  # direct reads want a page's alignment
        os.preadv(descriptor, [aligned], offset)


def _refused(path: Path, free: int, error: OSError) -> Finding:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return fail(
            "disk",
            f"the disk of {path} is full: {nbytes(free)} free, {nbytes(PROBE_BYTES)} could not be written",
            "delete what nobody needs there, or name another disk.path",
        )
    return fail(
        "disk", f"{path} cannot be written: {error.strerror}", "chown it to who runs the shards, or name another"
    )


def taken(path: Path) -> int:
    """Counts the bytes that shards which run there already have taken."""
    total = 0
    for folder, _, files in os.walk(path.expanduser()):
        for name in files:
            with suppress(OSError):  # compacted away meanwhile
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def existing(path: Path) -> Path:
    """Finds the folder, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    while not path.is_dir():
        path = path.parent
    return path
