"""Has all shards of a new service filled from a checkpoint.

exact    as many shards, with the same partitions: each becomes what its shard was
by rows  another number of shards, other names of tables, or values only: the tables are created, and each shard loads
         the rows of its partitions
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ps.config import ServiceConfig, TableConfig
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.load import check_fits
from ps.durability.checkpoint.manifest import Manifest
from ps.durability.checkpoint.where import split
from ps.errors import ConfigError, InvalidArgument, NotFound, PsError, TableExists
from ps.progress import Told
from ps.quoting import some_of
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.server.checkpoints.making import Maker, owners_of
from ps.server.checkpoints.shards import Shards, SideBySide, Until
from ps.server.checkpoints.task import Outcome
from ps.v1 import control_pb2 as pb
from ps.wire import methods

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a service is to be filled with, as `Client.restore` says."""

    url: str
    log: str
    at: Mapping[int, int]
    tables: Mapping[str, str]
    values_only: bool


class Restorer:
    """Fills a service. Any thread; one restore at a time."""

    def __init__(self, shards: Shards, config: ServiceConfig, maker: Maker, files: Files | None, clock: Clock) -> None:
        self._shards, self._config, self._maker = shards, config, maker
        self._catalog = partial(Checkpoints, files=files, clock=clock)

    def restore(self, request: Request, until: Until, told: Told) -> Outcome:
        """Fills the service; returns {"name", "exact", "versions"}."""
        catalog, manifest = self._find(request)
        exact = self._is_exact(request, manifest)
        versions = (
            self._exactly(catalog, manifest, request, until, told)
            if exact
            else self._by_rows(catalog, manifest, request, until, told)
        )
        log.info("checkpoint %s of %s is restored, to versions %s", manifest.name, catalog.url, versions)
        return {"name": manifest.name, "exact": exact, "versions": versions}

    def _find(self, request: Request) -> tuple[Checkpoints, Manifest]:
        """Returns the checkpoint that is meant: a path that ends with a name is one; any other is a folder, of which
        the newest is taken that is not behind the wanted versions."""
        folder, name = split(request.url)
        catalog = self._catalog(folder)
        if name is not None:
            return catalog, catalog.manifest(name)
        for each in reversed(catalog.list()):
            manifest = catalog.manifest(each.name)
            if all(part.version <= request.at.get(part.shard, part.version) for part in manifest.parts):
                return catalog, manifest
        wanted = f" from before versions {dict(request.at)}" if request.at else ""
        raise NotFound(
            f"there is no whole checkpoint in {catalog.url}{wanted}: give the folder that checkpoints were made in, or "
            "one of them; psctl checkpoint ls shows them"
        )

    def _is_exact(self, request: Request, manifest: Manifest) -> bool:
        exact = not request.tables and not request.values_only
        routing = self._shards.routing()
        exact = exact and manifest.routing == owners_of(routing)
        if (request.log or request.at) and not exact:
            raise InvalidArgument(
                f"a log can be carried out only behind an exact restore: into {manifest.routing.shards} shards (this "
                f"service has {len(routing.shards)}), without `tables` and `values_only`"
            )
        return exact

    def _exactly(
        self, catalog: Checkpoints, manifest: Manifest, request: Request, until: Until, told: Told
    ) -> list[int]:
        logs = self._config.log.mode != "off"
        if logs and self._config.checkpoint.path is None:
            raise ConfigError(
                f"log.mode is {self._config.log.mode!r}: what is restored is durable only with a checkpoint of it, and "
                "there is no checkpoint.path: start the service with one"
            )

        def part(position: int) -> pb.RestorePartRequest:
            return pb.RestorePartRequest(
                url=catalog.url, name=manifest.name, exact=True, log=request.log, at=request.at.get(position, 0)
            )

        with self._shards.unchanging():
            results = self._side_by_side(part, until, told, manifest.name)
            self._maker.half_restored = None
            configs = [TableConfig.from_json(table) for result in results for table in result["tables"]]
            self._shards.learn(configs)
        if logs:  # the shards are closed until it is there
            self._maker.make("", full=True, until=until, told=told, must_hear=True)
        return [result["version"] for result in results]

    def _by_rows(
        self, catalog: Checkpoints, manifest: Manifest, request: Request, until: Until, told: Told
    ) -> list[int]:
        names = dict(request.tables) or self._all_new(manifest)
        made: list[str] = []
        try:
            for config, has in self._targets(manifest, names, request.values_only):
                if has is None:
                    self._shards.create_table(config)
                    made.append(config.name)
            part = pb.RestorePartRequest(
                url=catalog.url, name=manifest.name, tables=names, values_only=request.values_only
            )
            results = self._side_by_side(lambda _: part, until, told)
        except BaseException:
            for name in made:
                self._drop(name)
            raise
        return [result["version"] for result in results]

    def _all_new(self, manifest: Manifest) -> dict[str, str]:
        """Returns all tables of the checkpoint, each under its name. Raises TableExists if one is here already."""
        exist = {config.name for config in self._shards.tables()}
        if there := sorted(exist & set(manifest.tables)):
            raise TableExists(
                f"there are tables {', '.join(there)}: restore into a new service, or name the tables that are to be "
                "loaded, and what they are to be called here (tables)"
            )
        return {name: name for name in manifest.tables}

    def _targets(
        self, manifest: Manifest, names: Mapping[str, str], values_only: bool
    ) -> list[tuple[TableConfig, TableConfig | None]]:
        """Returns the tables that rows go to: as they are in the checkpoint, and as they are here. Raises what refuses
        one, before anything is done."""
        exist = {config.name: config for config in self._shards.tables()}
        if len(set(names.values())) < len(names):
            raise InvalidArgument(f"tables {dict(names)}: two tables of the checkpoint would be one here")
        found = []
        for name, here in names.items():
            if name not in manifest.tables:
                raise NotFound(f"checkpoint {manifest.name} has no table {name!r}; it has {some_of(manifest.tables)}")
            saved = TableConfig.from_json(manifest.tables[name])
            config = TableConfig(**(saved.model_dump() | {"name": here}))
            check_fits(saved, exist.get(here, config), values_only)
            found.append((config, exist.get(here)))
        return found

    def _side_by_side(
        self, part: Callable[[int], pb.RestorePartRequest], until: Until, told: Told, exactly: str | None = None
    ) -> Sequence[Outcome]:
        """Has the shards filled. exactly: the checkpoint that each becomes; some may be when another fails."""
        work = SideBySide(self._shards, methods.RESTORE_PART, part, until)
        try:
            return work.results(told)
        finally:
            work.stop()
            if exactly is not None and work.some_done:
                self._maker.half_restored = exactly

    def _drop(self, name: str) -> None:
        try:
            self._shards.drop_table(name)
        except PsError as error:
            log.warning("table %s was not filled, and could not be dropped: %s", name, error)
