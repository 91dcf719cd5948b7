"""What a checkpoint says of itself, as values and as JSON (`sealed` has the grammar).

    manifest.json    {"format": 1, "name", "made", "release", "service", "routing", "tables", "parts", "base"}
    part.json        {"format": 1, "part": what the manifest has of it}

What each name stands for, the classes of this file say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from ps.durability.checkpoint.sealed import read_whole, seal, unseal
from ps.durability.checkpoint.stores.store import FileStore
from ps.errors import CheckpointCorrupt

FORMAT = 1
"""The version of these files, and of those that they name."""
MANIFEST, PART, OWNER = "manifest.json", "part.json", "owner"
"""Names of files. The owner is the name of the service that makes the checkpoint, as text."""
SCRATCH = ".opened-"
"""What the names of folders begin with that are there while a checkpoint is read."""
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9]{6}", re.ASCII)

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid")
_Number = Annotated[int, Field(ge=0, lt=1 << 64)]
_Crc = Annotated[int, Field(ge=0, lt=1 << 32)]
_Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
_File = Annotated[str, StringConstraints(pattern=r"^(state|rows-[0-9]{4,}|disk/[A-Za-z0-9_][A-Za-z0-9._-]*)$")]


@checked(frozen=True, config=_STRICT)
class StoredFile:
    """A file of a part."""

    name: _File
    """Within the folder of the shard."""
    nbytes: _Number
    crc32c: _Crc
    at: _Name | None = None
    """The checkpoint whose folder has the file, where it is another one."""
    shared: bool = False
    """Whether the base has the same file under a second name: it takes no room of its own."""


@checked(frozen=True, config=_STRICT)
class Extent:
    """Bytes [start, end) of a file of rows, which are whole blocks of one table."""

    file: _Number
    start: _Number
    end: _Number


@checked(frozen=True, config=_STRICT)
class PartTable:
    """A table, as a shard had it."""

    name: str
    born: _Number
    """The version of the shard at which it was created: a table of another birth is another table."""
    stamp: _Crc
    """What its clock showed: rows that have changed since have this stamp or a later one."""
    per_tick: Annotated[int, Field(ge=1, lt=1 << 32)]
    """Stamps of a tick of its ranking."""
    whole: bool = True
    """Whether all its rows are here: none is in the base."""
    rows: tuple[Extent, ...] = ()
    """Where its rows are that were in RAM, in the order of their writing."""


@checked(frozen=True, config=_STRICT)
class Part:
    """What one shard has written of a checkpoint."""

    shard: _Number
    version: _Number
    base: _Name | None
    """The checkpoint that has the rows that have not changed since; None: this one has all."""
    files: tuple[StoredFile, ...]
    workers: dict[_Number, _Number]
    """The highest sequence of each worker that is in it."""
    tables: tuple[PartTable, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the files that it has itself."""
        return sum(file.nbytes for file in self.files if file.at is None and not file.shared)

    def since(self) -> dict[tuple[str, int], int]:
        """Returns what the next checkpoint needs to have only what has changed, see `ps.durability.state`."""
        return {(table.name, table.born): table.stamp for table in self.tables}

    def table(self, name: str) -> PartTable | None:
        """Returns the table of that name, if the shard had it."""
        return next((table for table in self.tables if table.name == name), None)


@checked(frozen=True, config=_STRICT)
class Routing:
    """Which shard had which partitions of the id space."""

    shards: Annotated[int, Field(ge=1)]
    owners: tuple[_Number, ...] = ()
    """The shard of each partition."""


@checked(frozen=True, config=_STRICT)
class Manifest:
    """What a whole checkpoint says of itself."""

    name: _Name
    made: float
    """When, in seconds since 1970."""
    release: str
    """The release of this package that has made it."""
    service: str
    """Whose checkpoint it is: services may share a folder."""
    routing: Routing
    tables: Mapping[str, str]
    """The configuration of each table, as JSON."""
    parts: tuple[Part, ...]
    """One of each shard, in their order."""
    base: _Name | None = None
    """The checkpoint that this one builds on."""

    @property
    def nbytes(self) -> int:
        """Bytes of the files that it has itself."""
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class Summary:
    """What a list of checkpoints says of each."""

    name: str
    made: float
    service: str
    base: str | None
    shards: int
    nbytes: int
    """Bytes that it has itself; what it shares with others is theirs."""
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a checkpoint."""

    file: str
    """Whole path or URL."""
    byte: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}, byte {self.byte:,}: {self.what}"


_MANIFEST, _PART = TypeAdapter(Manifest), TypeAdapter(Part)


def manifest_bytes(manifest: Manifest) -> bytes:
    """Returns manifest.json."""
    return seal({"format": FORMAT, **_MANIFEST.dump_python(manifest, mode="json")})


def part_bytes(part: Part) -> bytes:
    """Returns part.json."""
    return seal({"format": FORMAT, "part": _PART.dump_python(part, mode="json")})


def read_manifest(store: FileStore, name: str) -> Manifest:
    """Reads the manifest of a checkpoint. Raises CheckpointCorrupt and DiskError."""
    where = store.where(f"{name}/{MANIFEST}")
    body = _opened(read_whole(store, f"{name}/{MANIFEST}"), where)
    manifest = _valid(_MANIFEST, body, where)
    if manifest.name != name:
        raise CheckpointCorrupt(f"{where}, byte 0: this is the manifest of {manifest.name}")
    if [part.shard for part in manifest.parts] != list(range(manifest.routing.shards)):
        raise CheckpointCorrupt(f"{where}, byte 0: there is not one part of each of {manifest.routing.shards} shards")
    return manifest


def read_part(store: FileStore, name: str, shard: int) -> Part:
    """Reads what a shard has written. Raises CheckpointCorrupt and DiskError."""
    file = f"{folder_of(name, shard)}/{PART}"
    where = store.where(file)
    part = _valid(_PART, _opened(read_whole(store, file), where).get("part"), where)
    if part.shard != shard:
        raise CheckpointCorrupt(f"{where}, byte 0: this is the part of shard {part.shard}")
    return part


def folder_of(name: str, shard: int) -> str:
    """Returns the folder of a part."""
    return f"{name}/shard-{shard}"


def path_of(name: str, shard: int, file: StoredFile) -> str:
    """Returns where a file of a part is."""
    return f"{folder_of(file.at or name, shard)}/{file.name}"


def _opened(data: bytes, where: str) -> dict[str, Any]:
    body = unseal(data, where)
    form = body.pop("format", None)
    if form != FORMAT:
        raise CheckpointCorrupt(f"{where}, byte 0: it is in format {form!r}, this version reads {FORMAT}")
    return body


def _valid(kind: TypeAdapter[T], body: object, where: str) -> T:
    try:
        return kind.validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointCorrupt(f"{where}, byte 0: {place}: {first['msg']}") from error


def stem_of(seconds: float) -> str:
    """Returns what the name of a checkpoint begins with that is made then."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def summary_of(manifest: Manifest) -> Summary:
    """Returns what a list says of a checkpoint."""
    shards, tables = manifest.routing.shards, tuple(sorted(manifest.tables))
    return Summary(manifest.name, manifest.made, manifest.service, manifest.base, shards, manifest.nbytes, tables)
