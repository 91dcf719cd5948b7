"""Creates, changes and drops the tables of one shard. Threads: any; the engine does the work."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ps.config import TableConfig, TensorTrain
from ps.errors import TableExists
from ps.shard.commit import Ready
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.writes.change import ChangeTable
from ps.shard.writes.create import CreateTable
from ps.shard.writes.drop import DropTable
from ps.shard.writes.write import Write
from ps.storage.ram.device_rows import check_device
from ps.table.cold.cores import ColdCores


class Tables:
    """Creates, changes and drops tables."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def create(self, config: TableConfig, exist_ok: bool) -> bool:
        """Returns True if it was created, False if it was created with this configuration before, whatever has changed
        since, or has it now; raises TableExists."""
        if config.device != "cpu":
            check_device(config.device)  # here, not on the engine's time: the first one imports torch
        install = partial(self._install, config, exist_ok)
        if isinstance(config.cold, TensorTrain):
            return self._durable(self._core.building.run(partial(self._reserve, config, exist_ok), install))
        return self._durable(self._core.engine.run(install))

    def set_optimizer(self, write: WriteId, name: str, settings: Mapping[str, float], cores: bool) -> int:
        """Gives a table's optimizer, or that of its `cores`, other settings: they hold for all pushes that are applied
        later, and for the table until it is dropped. Returns the version. Raises ConfigError and TableNotFound."""
        change = ChangeTable(write, name, settings, cores)
        (result,) = self._core.engine.run(partial(self._core.commit.carry_out, change.entries, lambda: Ready(change)))
        self._core.wait_until_durable(result.version)
        return result.version

    def drop(self, name: str, missing_ok: bool) -> bool:
        """Drops a table with all its rows; returns True if there was one."""

        def run() -> bool:
            if missing_ok and name not in self._core.tables:
                return False
            return self._carry_out(DropTable(name))

        return self._durable(self._core.engine.run(run))

    def _durable(self, answer: bool) -> bool:
        """Returns an answer when all that it can rest on is durable."""
        self._core.wait_until_durable(self._core.commit.version)
        return answer

    def _reserve(self, config: TableConfig, exist_ok: bool) -> ColdCores | None:
        self._core.commit.check_well()
        return None if self._exists(config, exist_ok) else self._core.builder.reserve(config)

    def _install(self, config: TableConfig, exist_ok: bool, cores: ColdCores | None = None) -> bool:
        try:
            self._core.commit.check_well()
            if self._exists(config, exist_ok):
                return False
            given, cores = cores, None  # the table's, whatever comes of it
            return self._carry_out(CreateTable(config, given))
        finally:
            if cores is not None:
                cores.close()

    def _carry_out(self, write: Write) -> bool:
        self._core.commit.carry_out((), lambda: Ready(write))
        return True

    def _exists(self, config: TableConfig, exist_ok: bool) -> bool:
        """Raises TableExists if a table of that name has another configuration."""
        existing = self._core.tables.get(config.name)
        if existing is None:
            return False
        if not exist_ok:
            raise TableExists(f"table {config.name!r} exists; pass exist_ok=True to use it as it is")
        if config not in (existing.created_as, existing.config):
            remedy = _remedy(existing.config, config)
            raise TableExists(f"table {config.name!r} exists as {existing.config!r}; you asked for {config!r}{remedy}")
        return True


def _remedy(exists: TableConfig, asked: TableConfig) -> str:
    """Says how the table can be what was asked for, where it can."""
    if exists.optimizer.kind != asked.optimizer.kind:
        return ""
    had, wanted = exists.optimizer.model_dump(), asked.optimizer.model_dump()
    settings = {name: wanted[name] for name in asked.optimizer.changeable if wanted[name] != had[name]}
    if not settings or exists.having_optimizer(settings) != asked:  # something else differs too
        return ""
    said = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f". The table can be that: client.set_optimizer({asked.name!r}, {said})"
