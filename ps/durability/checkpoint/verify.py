"""Reads every byte of a checkpoint, and of those that it builds on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from ps.durability.checkpoint.manifest import (
    MANIFEST,
    PART,
    Part,
    Problem,
    StoredFile,
    folder_of,
    path_of,
    read_manifest,
    read_part,
)
from ps.durability.checkpoint.stores.store import COPY_BYTES, FileStore, translated
from ps.errors import CheckpointCorrupt


class _Asked(NamedTuple):
    path: str
    file: StoredFile


def problems_of(store: FileStore, name: str, told: Callable[[int, int], None]) -> list[Problem]:
    """Returns what is wrong, and tells how many bytes of how many are done. Raises DiskError."""
    problems: list[Problem] = []
    asked: dict[str, StoredFile] = {}
    at: str | None = name
    while at is not None:
        at = _look_at(store, at, asked, problems)
    total, done = sum(file.nbytes for file in asked.values()), 0
    told(0, total)
    buffer = np.empty(COPY_BYTES, np.uint8)
    for path, file in asked.items():
        start = done

        def more(n: int, start: int = start) -> None:
            told(start + n, total)

        problem = _problem_of(store, _Asked(path, file), buffer, more)
        if problem is not None:
            problems.append(problem)
        done += file.nbytes
        told(done, total)
    return problems


def _look_at(store: FileStore, name: str, asked: dict[str, StoredFile], problems: list[Problem]) -> str | None:
    """Reads manifest and parts of one checkpoint, and notes the files that they name. Returns what it builds on."""
    try:
        manifest = read_manifest(store, name)
    except CheckpointCorrupt as error:
        problems.append(Problem(store.where(f"{name}/{MANIFEST}"), 0, str(error)))
        return None
    for part in manifest.parts:
        where = store.where(f"{folder_of(name, part.shard)}/{PART}")
        try:
            if read_part(store, name, part.shard) != part:
                problems.append(Problem(where, 0, "the manifest says something else of this part"))
        except CheckpointCorrupt as error:
            problems.append(Problem(where, 0, str(error)))
        _note(name, part, asked)
    if manifest.base is not None and manifest.base >= name:
        problems.append(Problem(store.where(f"{name}/{MANIFEST}"), 0, f"it builds on {manifest.base}: not older"))
        return None
    return manifest.base


def _note(name: str, part: Part, asked: dict[str, StoredFile]) -> None:
    for file in part.files:
        asked.setdefault(path_of(name, part.shard, file), file)


def _problem_of(
    store: FileStore, asked: _Asked, buffer: np.ndarray[tuple[int], np.dtype[np.uint8]], told: Callable[[int], None]
) -> Problem | None:
    path, file = asked
    at = crc = 0
    try:
        with translated(store.url):
            size = store.size(path)
            while n := store.read_into(path, at, buffer.data):
                crc = crc32c(buffer[:n].data, crc)
                at += n
                told(min(at, file.nbytes))
    except FileNotFoundError:
        return Problem(store.where(path), 0, "the file is missing")
    if size != file.nbytes or at != size:
        return Problem(store.where(path), min(at, file.nbytes), f"the file has {at:,} bytes, and had {file.nbytes:,}")
    if crc != file.crc32c:
        return Problem(store.where(path), 0, f"its {at:,} bytes are not those that were written")
    return None
