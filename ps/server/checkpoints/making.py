"""Has all shards of a service write a checkpoint: all of it is there, or nothing.

shards            a cut, all while no table is created, changed or dropped; then each its part, side by side
manifest          when all parts are there: from now on there is a checkpoint
shards            hear that it is kept, and let their logs go behind the oldest that is
older ones        are removed, beyond `checkpoint.keep`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from ps import __version__
from ps.config import ServiceConfig
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.manifest import Manifest, Part
from ps.durability.checkpoint.manifest import Routing as Owners
from ps.errors import ConfigError, InvalidArgument, PsError
from ps.progress import Told
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.server.checkpoints.parts import PART
from ps.server.checkpoints.shards import Shards, SideBySide, Until, of_shard
from ps.v1 import control_pb2 as pb
from ps.wire import methods
from ps.wire.routing import Routing

log = logging.getLogger(__name__)

CUTS = "waiting for the shards"
GIVES_UP_WITHIN_S = 10.0
"""Seconds that a shard has to end its part of a checkpoint that failed. What it leaves later goes with old ones."""


class Maker:
    """Makes the checkpoints of a service, one at a time. Any thread."""

    def __init__(self, shards: Shards, config: ServiceConfig, service: str, files: Files | None, clock: Clock) -> None:
        """service: its name, which says whose checkpoints are removed."""
        self._shards, self._service = shards, service
        self._config = config.checkpoint
        self._catalog: Callable[[str], Checkpoints] = partial(Checkpoints, files=files, clock=clock, service=service)
        self._clock = clock
        self.half_restored: str | None = None
        """The checkpoint that some shards were restored from, and others were not: there is nothing whole to save."""

    def url(self, given: str) -> str:
        """Returns where a checkpoint goes. Raises ConfigError if nobody has said it."""
        url = given or self._config.path
        if not url:
            raise ConfigError(
                "where are checkpoints to go? Pass a path, or start the service with checkpoint.path: "
                'psctl up --config with "checkpoint: {path: /shared/checkpoints}"'
            )
        return url

    def make(self, given: str, full: bool, until: Until, told: Told, must_hear: bool = False) -> Manifest:
        """Makes a checkpoint and returns its manifest. given: the URL of the folder; empty: the service's own. Where it
        fails nothing is left of it, and older ones are whole. must_hear: raises also where a shard does not hear that
        the checkpoint is kept. Raises InvalidArgument while a restore has filled some shards and not others."""
        if self.half_restored is not None:
            raise InvalidArgument(
                f"the restore of checkpoint {self.half_restored} has failed on a shard, and others have it: restore it "
                "again, or restart the service"
            )
        catalog = self._catalog(self.url(given))
        routing = self._shards.routing()
        base = None if full else self._base(catalog, routing)
        name = catalog.new_name()
        try:
            parts, tables = self._parts(catalog.url, name, base, until, told)
            manifest = self._manifest(name, routing, parts, tables)
            told("manifest", manifest.nbytes, manifest.nbytes)
            catalog.complete(name, manifest)
        except BaseException:
            self._remove(catalog, name)
            raise
        log.info("checkpoint %s is complete: %d bytes", name, manifest.nbytes)
        self._follow(catalog, manifest, until, must_hear)
        return manifest

    def _base(self, catalog: Checkpoints, routing: Routing) -> str | None:
        """Returns the checkpoint that the next may build on; None where all rows are to be written."""
        newest = catalog.newest()
        if newest is None or newest.routing != owners_of(routing):
            return None
        below, since_full = newest, 1
        while below.base is not None and since_full < self._config.full_every:
            below, since_full = catalog.manifest(below.base), since_full + 1
        return newest.name if since_full < self._config.full_every else None

    def _parts(
        self, url: str, name: str, base: str | None, until: Until, told: Told
    ) -> tuple[list[Part], dict[str, str]]:
        """Has the shards write their parts; returns these, and the configurations of the tables at the cut."""
        request = pb.CheckpointPartRequest(url=url, name=name, base=base or "")
        with self._shards.unchanging():
            tables = {config.name: config.to_json() for config in self._shards.tables()}
            work = SideBySide(self._shards, methods.CHECKPOINT_PART, lambda _: request, until)
            try:
                work.begun(told, CUTS)
            except BaseException:
                work.stop()
                raise
        try:
            return [PART.validate_python(result["part"]) for result in work.results(told)], tables
        finally:
            work.stop()

    def _manifest(self, name: str, routing: Routing, parts: Sequence[Part], tables: dict[str, str]) -> Manifest:
        base = next((part.base for part in parts if part.base is not None), None)
        made = self._clock.wall()
        return Manifest(name, made, __version__, self._service, owners_of(routing), tables, tuple(parts), base)

    def _remove(self, catalog: Checkpoints, name: str) -> None:
        """Removes what there is of a checkpoint that failed, when no shard writes it any more."""
        request = pb.KeepPartRequest(url=catalog.url, name=name, failed=True)
        for position in range(len(self._shards.routing().shards)):
            try:
                self._shards.call(position, methods.KEEP_PART, request, GIVES_UP_WITHIN_S)
            except PsError as error:
                log.warning("after checkpoint %s, which failed: %s", name, of_shard(error, position))
        try:
            catalog.remove(name)
        except PsError as error:
            log.warning("what is left of checkpoint %s could not be removed: %s", name, error)

    def _follow(self, catalog: Checkpoints, manifest: Manifest, until: Until, must_hear: bool) -> None:
        """Does what follows a checkpoint that stands, even if a part of it fails."""
        behind = self._prune(catalog, manifest)
        for position in range(len(manifest.parts)):
            request = pb.KeepPartRequest(url=catalog.url, name=manifest.name, truncate=behind[position])
            try:
                self._shards.call(position, methods.KEEP_PART, request, until.left_s())
            except PsError as error:
                if must_hear:
                    raise of_shard(error, position) from error
                log.warning("after checkpoint %s: %s", manifest.name, of_shard(error, position))

    def _prune(self, catalog: Checkpoints, manifest: Manifest) -> list[int]:
        """Removes old checkpoints from the service's own folder; returns for each shard the version up to which no kept
        checkpoint needs the log. 0: what that is is not known, or another folder's checkpoint is no reason."""
        nothing = [0] * len(manifest.parts)
        if self._config.path is None or catalog.url != self._catalog(self._config.path).url:
            return nothing
        try:
            catalog.prune(self._config.keep)
            names = [each.name for each in catalog.list() if each.service == self._service]
            kept = [each for each in map(catalog.manifest, names) if len(each.parts) == len(manifest.parts)]
        except PsError as error:
            log.warning("old checkpoints in %s could not be removed: %s", catalog.url, error)
            return nothing
        return [min(part.version for part in parts) for parts in zip(*(each.parts for each in kept), strict=True)]


def owners_of(routing: Routing) -> Owners:
    """Returns which shard has which partitions, as a manifest has it."""
    return Owners(len(routing.shards), tuple(routing.shard_of_partition.tolist()))
