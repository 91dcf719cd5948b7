"""The calls of a client that concern tables: create, change, drop, list."""

from __future__ import annotations

from collections.abc import Mapping

from ps.client.connection.retry import Deadline
from ps.client.session import ClientCalls
from ps.config import TableConfig
from ps.errors import ConfigError
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods

ANSWER_SHARE = 0.9
"""The coordinator tries to reach all shards for this share of the time left, and then says which it has reached."""


class TableCalls(ClientCalls):
    """The calls that concern tables."""

    def create_table(
        self, config: TableConfig, *, exist_ok: bool = False, timeout_s: float | None = None
    ) -> TableConfig:
        """Creates a table on every shard, and returns its configuration. Raises TableExists unless `exist_ok` and the
        configuration is the one that the table has, or was created with before its optimizer was changed."""

        def request(attempt: int) -> pb.CreateTableRequest:
            # A repeat cannot tell its own lost first attempt from a stranger's table: the configurations are compared.
            return pb.CreateTableRequest(config_json=config.to_json(), exist_ok=exist_ok or attempt > 0)

        session = self._session
        data = session.ask_coordinator(methods.CREATE_TABLE, request, session.deadline(timeout_s))
        answer = codec.parse(pb.CreateTableResponse, data)
        if answer.created:
            session.push_numbers.restart(config.name)
        created = TableConfig.from_json(answer.config_json)
        session.connection.tables[config.name] = created
        return created

    def set_optimizer(
        self, table: str, *, cores: bool = False, timeout_s: float | None = None, **settings: float
    ) -> TableConfig:
        """Changes settings of a table's optimizer, `client.set_optimizer("user", lr=0.01)`, on every shard, and returns
        the table's configuration. They hold for all pushes that are applied later, whoever sends them; state of rows
        stays as it is. `lr=0` stops the table's values.

        settings: the learning rate, and what else only a step depends on (`type(config.optimizer).changeable`). cores:
        they are of the optimizer that the cores of a tensor-train table have for themselves (`cold.optimizer`); without
        one the cores follow the table's.

        It is a write like a push, once on each shard. Where a shard cannot be reached until the deadline, the error
        says which shards have the change; the same call again gives it to all. Raises TableNotFound, and ConfigError
        for other settings and for values out of range.
        """
        session = self._session
        deadline = session.deadline(timeout_s)
        values = self._checked(table, settings, cores, deadline)
        sequence = session.next_sequence()

        def request(attempt: int) -> pb.SetOptimizerRequest:
            wait_ms = int(1000 * ANSWER_SHARE * deadline.remaining_s())
            return pb.SetOptimizerRequest(
                worker_id=session.worker_id,
                sequence=sequence,
                table=table,
                settings=values,
                cores=cores,
                wait_ms=wait_ms,
            )

        data = session.ask_coordinator(methods.SET_OPTIMIZER, request, deadline)
        changed = TableConfig.from_json(codec.parse(pb.SetOptimizerResponse, data).config_json)
        session.connection.tables[table] = changed
        return changed

    def _checked(self, table: str, settings: Mapping[str, float], cores: bool, deadline: Deadline) -> dict[str, float]:
        """Returns the settings as numbers, before anything is sent. Raises ConfigError."""
        connection = self._session.connection
        config = connection.table(table, deadline)
        try:
            config.having_optimizer(settings, cores)
        except ConfigError:
            connection.refresh(deadline)  # it may be another table of that name by now
            connection.table(table, deadline).having_optimizer(settings, cores)
        return {name: float(value) for name, value in settings.items()}

    def drop_table(self, name: str, *, missing_ok: bool = False, timeout_s: float | None = None) -> bool:
        """Drops a table with all its rows; returns True if it existed. Raises TableNotFound unless `missing_ok`."""

        def request(attempt: int) -> pb.DropTableRequest:
            return pb.DropTableRequest(table=name, missing_ok=missing_ok or attempt > 0)

        session = self._session
        data = session.ask_coordinator(methods.DROP_TABLE, request, session.deadline(timeout_s))
        session.connection.tables.pop(name, None)
        session.push_numbers.restart(name)
        return codec.parse(pb.DropTableResponse, data).dropped

    def tables(self, *, timeout_s: float | None = None) -> dict[str, TableConfig]:
        """Returns the configurations of the service's tables, by name."""
        self._session.connection.refresh(self._session.deadline(timeout_s))
        return dict(self._session.connection.tables)
