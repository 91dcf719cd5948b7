"""The folder of a run's checkpoints, and the one file in each that says what it is.

FOLDER/step-000000000400/     a checkpoint, complete: it got this name when all of it was on disk
    training.json             {"format": 1, "step": 400, "ranks": 2, "settings": {...}, "service":
                               {"path": "service", "name": "20261201T012300Z-000001", "tables": ["user"]}}
    service/                  the service's checkpoint, in a folder of that name; or "path" says where it is
    dense/                    tensors of modules and optimizers (ps.nn.checkpoint.dense)
    rank-0.pt, rank-1.pt      all else that a trainer has (ps.nn.checkpoint.parts)
FOLDER/step-000000000800.new/ one that is being made, or that was broken off; the next one removes it
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ps.errors import CheckpointCorrupt, DiskError, DiskFull, PsError
from ps.runtime.files import Files

FORMAT = 1
MANIFEST = "training.json"
SERVICE = "service"
_NAME = re.compile(r"step-(\d{12})")
_UNFINISHED = ".new"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an error of the system's files into DiskFull or DiskError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PsError):  # some are OSErrors too, such as Unavailable
            raise
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiskError
        raise kind(f"{path}: no checkpoint was made, those before stay: {error}") from error


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is of, and which checkpoint of the service belongs to it."""

    step: int
    ranks: int
    service_path: str
    """The folder or URL of the service's checkpoints; SERVICE: the folder of that name in this one."""
    service_name: str
    tables: Sequence[str]
    """All tables of the service."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was made."""

    step: int
    path: Path
    trainer_bytes: int
    """Bytes of the trainers' files, of all ranks."""
    service_name: str
    """The name of the service's checkpoint."""
    seconds: float


class Folder:
    """The checkpoints of one run. Only one process writes to it."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, ascending."""
        names = self._files.names(self.path) if self.path.is_dir() else []
        found = [match for match in map(_NAME.fullmatch, names) if match and (self.path / match[0] / MANIFEST).exists()]
        return sorted(int(match[1]) for match in found)

    def of(self, step: int) -> Path:
        """Returns the folder of a complete checkpoint."""
        return self.path / f"step-{step:012d}"

    def unfinished(self, step: int) -> Path:
        """Returns the folder in which a checkpoint is made."""
        return self.path / (self.of(step).name + _UNFINISHED)

    def begin(self, step: int) -> None:
        """Makes the folder for a new checkpoint, and removes what was broken off."""
        self._files.make_folder(self.path)
        for name in self._files.names(self.path):
            if name.endswith(_UNFINISHED) and _NAME.fullmatch(name.removesuffix(_UNFINISHED)):
                shutil.rmtree(self.path / name)
        self._files.make_folder(self.unfinished(step))

    def write(self, path: Path, content: bytes) -> None:
        """Writes a new file, which is durable then."""
        file = self._files.create(path)
        try:
            file.write([content])
            file.sync()
        finally:
            file.close()

    def complete(self, manifest: Manifest) -> None:
        """Turns what has been written since `begin` into a checkpoint, at once and durably."""
        made, place = self.unfinished(manifest.step), self.of(manifest.step)
        told = {"format": FORMAT, "step": manifest.step, "ranks": manifest.ranks, "settings": dict(manifest.settings)}
        service = {"path": manifest.service_path, "name": manifest.service_name, "tables": list(manifest.tables)}
        self.write(made / MANIFEST, json.dumps({**told, "service": service}, indent=1).encode())
        self._files.sync_folder(made)
        self._files.rename(made, place)
        self._files.sync_folder(self.path)

    def manifest(self, step: int) -> Manifest:
        """Returns what a checkpoint says of itself. Raises CheckpointCorrupt."""
        path = self.of(step) / MANIFEST
        try:
            told = json.loads(self._files.read(path, 0, self._files.size(path)))
            if told["format"] != FORMAT:
                raise CheckpointCorrupt(f"{path}: format {told['format']!r}, and this version reads {FORMAT}")
            service = told["service"]
            place = service["path"], service["name"], service["tables"]
            return Manifest(told["step"], told["ranks"], *place, told["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointCorrupt(
                f"{path} cannot be read ({error}): remove its folder to go on from an earlier one"
            ) from error

    def nbytes(self, step: int) -> int:
        """Returns the bytes of the trainers' files in a checkpoint."""
        place = self.of(step)
        return sum(path.stat().st_size for path in (*place.glob("rank-*"), *place.glob("dense/*")))

    def prune(self, keep: int) -> None:
        """Removes all complete checkpoints but the newest."""
        for step in self.steps()[:-keep]:
            place = self.of(step)
            self._files.remove(place / MANIFEST)  # first: what is left of it is no checkpoint
            shutil.rmtree(place)
