"""The calls of a client that concern tables: create, drop, list."""

from __future__ import annotations

from ps.client.session import ClientCalls
from ps.config import TableConfig
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods


class TableCalls(ClientCalls):
    """The calls that concern tables."""

    def create_table(
        self, config: TableConfig, *, exist_ok: bool = False, timeout_s: float | None = None
    ) -> TableConfig:
        """Creates a table on every shard. Raises TableExists unless `exist_ok` and the configuration is the same."""

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
