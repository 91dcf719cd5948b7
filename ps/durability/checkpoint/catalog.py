"""The checkpoints of services under one URL.

    <url>/<name>/owner             the name of the service, as text; written first
    <url>/<name>/shard-K/...       the part of each shard, see `writer`
    <url>/<name>/manifest.json     written last: without it there is no checkpoint

A name is UTC time and a counter: 20261201T012300Z-000001. Names sort by age.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.config import TableConfig
from ps.durability.checkpoint import listing
from ps.durability.checkpoint.elsewhere import Elsewhere, on_disk
from ps.durability.checkpoint.manifest import (
    MANIFEST,
    NAME,
    Manifest,
    Problem,
    Summary,
    folder_of,
    manifest_bytes,
    read_manifest,
    read_part,
    summary_of,
)
from ps.durability.checkpoint.source import PartSource
from ps.durability.checkpoint.stores.store import store_of, translated
from ps.durability.checkpoint.verify import problems_of
from ps.durability.checkpoint.writer import PartWriter
from ps.errors import CheckpointCorrupt, InvalidArgument, NotFound
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.files import Files
from ps.storage.tier import Records


def _not_told(_done_bytes: int, _all_bytes: int) -> None:
    """Does nothing."""


class Checkpoints:
    """Writes, reads, lists and removes checkpoints. Any thread may use it; of one service one at a time makes, removes
    or prunes them.

    All methods raise DiskError and DiskFull; those that read a checkpoint raise CheckpointCorrupt, which names file and
    byte, NotFound for one that is not there, and InvalidArgument for what is no name.
    """

    def __init__(self, url: str, files: Files | None = None, clock: Clock = SYSTEM_CLOCK, service: str = "") -> None:
        """url: a path of this host, or what fsspec has a driver for. files: those of this host. service: whose
        checkpoints are made and pruned; several may share a URL. Raises ConfigError for a URL that cannot be used."""
        self._store, self._clock, self._service = store_of(url, files), clock, service
        self.url = self._store.url
        """What was given, as a whole path or URL."""

    # making one

    def new_name(self) -> str:
        """Returns the name of a checkpoint that is to be made. It is this service's from now on."""
        return listing.claim_name(self._store, self._service, self._clock.wall())

    def part(self, name: str, shard: int, base: str | None = None) -> PartWriter:
        """Returns what writes the part of a shard, a sink. base: the checkpoint that has what has not changed since."""
        _check_name(name)
        return PartWriter(
            self._store, name, shard, None if base is None else (base, read_part(self._store, base, shard))
        )

    def complete(self, name: str, manifest: Manifest) -> None:
        """Makes a checkpoint of the parts that all shards have written: it is there from now on, whole. Raises
        CheckpointCorrupt where a part cannot be seen here as its shard has written it, or its base is gone."""
        _check_name(name)
        if manifest.name != name:
            raise InvalidArgument(f"checkpoint {name} with a manifest of {manifest.name}")
        for part in manifest.parts:
            if read_part(self._store, name, part.shard) != part:
                raise CheckpointCorrupt(
                    f"{self._store.where(folder_of(name, part.shard))}: this is not what shard {part.shard} says that "
                    "it has written: do all hosts see the same folder?"
                )
            listing.check_files(self._store, name, part)
        if manifest.base is not None:
            read_manifest(self._store, manifest.base)
        with translated(self.url):
            self._store.sync(name)
            self._store.sync("")
            self._store.put(f"{name}/{MANIFEST}", manifest_bytes(manifest))

    # what there is

    def list(self) -> Sequence[Summary]:
        """Returns all checkpoints, of all services, the oldest first. One whose manifest cannot be read is left out,
        and the log says so."""
        return [summary_of(manifest) for manifest in listing.manifests_of(self._store)]

    def newest(self) -> Manifest | None:
        """Returns the newest checkpoint whose manifest can be read: of this service, if it was named."""
        manifests = reversed(listing.manifests_of(self._store))
        return next((each for each in manifests if self._service in ("", each.service)), None)

    def manifest(self, name: str) -> Manifest:
        """Returns what a checkpoint says of itself."""
        _check_name(name)
        if not listing.is_complete(self._store, name):
            there = ", ".join(each for each in listing.names_of(self._store) if listing.is_complete(self._store, each))
            raise NotFound(f"{self.url} has no checkpoint {name}; it has: {there or 'none'}")
        return read_manifest(self._store, name)

    def verify(self, name: str, told: Callable[[int, int], None] = _not_told) -> Sequence[Problem]:
        """Reads every byte of a checkpoint and of those that it builds on, and returns what is wrong; nothing if it is
        whole. `told` is called with how many bytes are done, of how many."""
        _check_name(name)
        return problems_of(self._store, name, told)

    def names(self) -> Sequence[str]:
        """Returns the names of all, of all services, also of what is not complete."""
        return listing.names_of(self._store)

    def unreadable(self) -> Sequence[str]:
        """Returns those of this service of which the manifest cannot be read, and why."""
        return listing.unreadable(self._store, self._service)

    def beyond(self, shard: int, version: int) -> Sequence[str]:
        """Returns those of this service, also what is not complete, of which the part of a shard is of a later version
        than this, or cannot be read."""
        return listing.beyond(self._store, self._service, shard, version)

    # away with it

    def remove(self, name: str) -> None:
        """Removes a checkpoint, or what one that was never completed has left. Raises InvalidArgument where another one
        builds on it."""
        _check_name(name)
        above = [each.name for each in listing.manifests_of(self._store) if each.base == name]
        if above:
            raise InvalidArgument(f"checkpoint {name} has rows that {', '.join(above)} builds on: remove that first")
        listing.remove(self._store, name)

    def prune(self, keep: int) -> Sequence[str]:
        """Removes all checkpoints of this service but the newest `keep` and those that others build on; and, after a
        while, what checkpoints that were never completed have left. Returns the names."""
        gone = listing.to_prune(self._store, self._service, keep, self._clock.wall())
        for name in gone:
            listing.remove(self._store, name)
        listing.remove_scratch(self._store, self._clock.wall())
        return sorted(gone)

    # reading one

    def source(self, name: str, shard: int) -> PartSource:
        """Returns the part of a shard, with what it builds on: for a shard that is to be exactly what this one was."""
        _check_name(name)
        chain = listing.chain_of(self._store, name, shard)
        return PartSource(self._store, chain, partial(on_disk, self._store, chain))

    def rows(self, name: str, table: str, wanted_P: npt.NDArray[np.bool_]) -> Iterator[Records]:
        """Yields the rows of a table in some partitions, bool [4096], wherever they are: for another number of shards.

        Each living row once, as readers see it, in the form of a hot row: float32 [dim + state]. Scores are as of the
        checkpoint, and no stamps are told: so all rows keep their order by importance, whatever the clocks of shards
        show (`ps.shard.writes.load`). Raises NotFound for a table that is not there, and ConfigError for one with
        tensor-train cores.
        """
        return self.table(name, table).rows(wanted_P)

    def table(self, name: str, table: str) -> Elsewhere:
        """Returns a table of a checkpoint, for shards that are not those that have saved it. Raises as `rows` does."""
        manifest = self.manifest(name)
        if table not in manifest.tables:
            there = ", ".join(sorted(manifest.tables)) or "none"
            raise NotFound(f"checkpoint {name} has no table {table!r}: it has {there}")
        config = TableConfig.from_json(manifest.tables[table])
        return Elsewhere(
            self._store, config, [listing.chain_of(self._store, name, part.shard) for part in manifest.parts]
        )


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidArgument(f"{name!r} is no name of a checkpoint: one is 20261201T012300Z-000001")
