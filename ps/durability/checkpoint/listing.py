"""What checkpoints there are under a URL, and which of them may go."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ps.durability.checkpoint.manifest import (
    MANIFEST,
    NAME,
    OWNER,
    PART,
    SCRATCH,
    Manifest,
    Part,
    folder_of,
    path_of,
    read_manifest,
    read_part,
    stem_of,
)
from ps.durability.checkpoint.sealed import read_whole
from ps.durability.checkpoint.source import Link
from ps.durability.checkpoint.stores.store import FileStore, translated
from ps.errors import CheckpointCorrupt

log = logging.getLogger(__name__)

LEFTOVER_S = 24 * 3600.0
"""What has no manifest after so long is removed: whoever wrote it has ended."""
_TIME_CHARACTERS = 16


def claim_name(store: FileStore, service: str, now: float) -> str:
    """Makes the folder of a new checkpoint, which is this service's; returns its name, the greatest of all."""
    taken = names_of(store)
    stem = max(stem_of(now), max(taken, default="")[:_TIME_CHARACTERS])  # a clock may go back, names do not
    number = max((int(name[_TIME_CHARACTERS + 1 :]) for name in taken if name.startswith(stem)), default=0)
    with translated(store.url):
        while True:
            number += 1
            name = f"{stem}-{number:06d}"
            try:
                owner = store.create(f"{name}/{OWNER}", fresh=True)
            except FileExistsError:
                continue
            owner.write([service.encode()])
            owner.finish()
            store.sync(name)
            return name


def names_of(store: FileStore) -> list[str]:
    """Returns the names of checkpoints, also of those that are not complete, ascending."""
    with translated(store.url):
        return [name for name in store.names("") if NAME.fullmatch(name)]


def is_complete(store: FileStore, name: str) -> bool:
    """Tells whether a checkpoint has a manifest."""
    with translated(store.url):
        return MANIFEST in store.names(name)


def manifests_of(store: FileStore) -> list[Manifest]:
    """Returns all manifests, the oldest first. One that cannot be read is left out, and the log says so."""
    found = []
    for name in names_of(store):
        if is_complete(store, name):
            try:
                found.append(read_manifest(store, name))
            except CheckpointCorrupt as error:
                log.warning("checkpoint %s is left out: %s", name, error)
    return found


def chain_of(store: FileStore, name: str, shard: int) -> list[Link]:
    """Returns the part of a shard and those that it builds on, the newest first. Raises CheckpointCorrupt."""
    chain: list[Link] = []
    at: str | None = name
    while at is not None:
        if chain and at >= chain[-1].name:
            raise CheckpointCorrupt(f"checkpoint {chain[-1].name} says that it builds on {at}, which is not older")
        chain.append(Link(at, read_part(store, at, shard)))
        at = chain[-1].part.base
    return chain


def check_files(store: FileStore, name: str, part: Part) -> None:
    """Raises CheckpointCorrupt unless all files of a part are here, with the lengths that they should have."""
    for file in part.files:
        path = path_of(name, part.shard, file)
        try:
            with translated(store.url):
                size = store.size(path)
        except FileNotFoundError:
            raise CheckpointCorrupt(f"{store.where(path)}, byte 0: the file is missing") from None
        if size != file.nbytes:
            raise CheckpointCorrupt(
                f"{store.where(path)}, byte {min(size, file.nbytes):,}: the file has {size:,} bytes, and "
                f"{file.nbytes:,} were written"
            )


def to_prune(store: FileStore, service: str, keep: int, now: float) -> list[str]:
    """Returns the checkpoints of a service that go where its newest `keep` stay, and those that they build on; the
    newest first, so that none goes before what builds on it. What never was complete goes after a while, too."""
    manifests = {each.name: each for each in manifests_of(store)}
    mine = [name for name, each in manifests.items() if each.service == service]
    gone = set(mine[: max(len(mine) - keep, 0)])
    for name in manifests:
        if name not in gone:
            gone -= set(_below(name, manifests))
    gone |= set(_leftovers(store, service, mine[-1] if mine else "", now))
    return sorted(gone, reverse=True)


def unreadable(store: FileStore, service: str) -> list[str]:
    """Returns the checkpoints of a service of which the manifest cannot be read, and why."""
    found = []
    for name in names_of(store):
        try:
            if is_complete(store, name) and _owner(store, name) == service:
                read_manifest(store, name)
        except CheckpointCorrupt as error:
            found.append(f"checkpoint {name}: {error}")
    return found


def beyond(store: FileStore, service: str, shard: int, version: int) -> list[str]:
    """Returns the checkpoints of a service, complete or not, of which the part of a shard has a later version than
    this, or one that cannot be read."""
    found = []
    for name in names_of(store):
        with translated(store.url):
            has_part = MANIFEST in store.names(name) or PART in store.names(folder_of(name, shard))
        if not has_part or _owner(store, name) != service:
            continue
        try:
            if read_part(store, name, shard).version <= version:
                continue
        except CheckpointCorrupt as error:
            log.warning("checkpoint %s: %s", name, error)
        found.append(name)
    return found


def remove_scratch(store: FileStore, now: float) -> None:
    """Removes what readers have left that were killed a while ago."""
    with translated(store.url):
        for name in store.names(""):
            if name.startswith(SCRATCH) and name.removeprefix(SCRATCH) < stem_of(now - LEFTOVER_S):
                store.remove(name)


def remove(store: FileStore, name: str) -> None:
    """Removes a checkpoint: first its manifest, so that what a crash leaves is none, and last the name of its owner."""
    with translated(store.url):
        store.remove(f"{name}/{MANIFEST}")
        if inside := store.names(name):
            store.sync(name)
        for each in inside:
            if each not in (MANIFEST, OWNER):
                store.remove(f"{name}/{each}")
        store.remove(name)
        store.sync("")


def _below(name: str, manifests: dict[str, Manifest]) -> Iterator[str]:
    base = manifests[name].base
    while base is not None:
        yield base
        base = manifests[base].base if base in manifests and base < name else None


def _leftovers(store: FileStore, service: str, newest: str, now: float) -> Iterator[str]:
    """Yields what this service has begun and never completed: before its newest checkpoint, or long ago."""
    for name in names_of(store):
        with translated(store.url):
            inside = store.names(name)
        if MANIFEST in inside:
            continue
        is_old = name[:_TIME_CHARACTERS] < stem_of(now - LEFTOVER_S)
        is_empty = set(inside) <= {OWNER}  # a crash may have taken whose it is
        mine = is_old if is_empty else _owner(store, name) == service
        if mine and (is_old or name < newest):
            yield name


def _owner(store: FileStore, name: str) -> str:
    """Returns the service that a checkpoint is of; empty where that is not there."""
    with translated(store.url):
        has = OWNER in store.names(name)
    return read_whole(store, f"{name}/{OWNER}").decode(errors="replace") if has else ""
