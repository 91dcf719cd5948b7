"""The RPCs of the control plane: Describe, CreateTable, DropTable, SetOptimizer and Stats. They raise PsError;
`ps.server.gate.dispatch` turns it into a status."""

from __future__ import annotations

import json

from ps.config import TableConfig, check_table_name
from ps.errors import Unavailable
from ps.server.checkpoints.parts import Parts
from ps.server.handlers.service import ShardService
from ps.server.handlers.writes import NOBODY
from ps.server.process import process_report
from ps.server.watch.logs import about_call
from ps.server.watch.metrics import RpcMetrics
from ps.shard.ledger import WriteId
from ps.shard.writes.change import ChangeTable
from ps.shard.writes.write import table_of
from ps.v1 import control_pb2 as control
from ps.wire import requests


class Control:
    """The control plane of one shard."""

    def __init__(self, service: ShardService, metrics: RpcMetrics, parts: Parts) -> None:
        """parts: the shard's parts of checkpoints."""
        self._service, self._shard = service, service.shard
        self._metrics, self._parts = metrics, parts

    def describe(self, data: bytes) -> bytes:
        """Serves Control.Describe."""
        if not self._service.routing.shards:
            raise Unavailable("this shard has no routing table yet: the service is still starting")
        tables = [table.config.to_json() for table in list(self._shard.tables.values())]
        return control.DescribeResponse(
            routing=self._service.routing.to_proto(), table_configs_json=tables, release=self._service.release
        ).SerializeToString()

    def create_table(self, data: bytes) -> bytes:
        """Serves Control.CreateTable."""
        self._service.check_state()
        request = requests.control(control.CreateTableRequest, data)
        config = TableConfig.from_json(request.config_json)
        created = self._shard.create_table(config, request.exist_ok)
        if not created:
            config = table_of(self._shard.tables, config.name).config  # its optimizer may have changed
        return control.CreateTableResponse(config_json=config.to_json(), created=created).SerializeToString()

    def drop_table(self, data: bytes) -> bytes:
        """Serves Control.DropTable."""
        self._service.check_state()
        request = requests.control(control.DropTableRequest, data)
        dropped = self._shard.drop_table(request.table, request.missing_ok)
        return control.DropTableResponse(dropped=dropped).SerializeToString()

    def set_optimizer(self, data: bytes) -> bytes:
        """Serves Control.SetOptimizer."""
        self._service.check_state()
        request = requests.control(control.SetOptimizerRequest, data)
        check_table_name(request.table)
        about_call(worker=f"{request.worker_id:#x}", sequence=request.sequence)
        digest = ChangeTable(NOBODY, request.table, request.settings, request.cores).digest()
        write = WriteId(request.worker_id, request.sequence, digest)
        self._shard.set_optimizer(write, request.table, dict(request.settings), request.cores)
        config = table_of(self._shard.tables, request.table).config
        return control.SetOptimizerResponse(config_json=config.to_json()).SerializeToString()

    def stats(self, data: bytes) -> bytes:
        """Serves Control.Stats."""
        stats = {
            **self._shard.stats(),
            "state_lost": self._service.state_lost,
            "release": self._service.release,
            "checkpoint": self._parts.stats(),
            "budget": {
                "ram": self._service.config.memory.ram_bytes,
                "gpu": self._service.config.memory.gpu_bytes,
                "disk": self._service.config.disk.max_bytes,
            },
            "traffic": self._metrics.traffic(),
            "process": process_report(),
        }
        return control.StatsResponse(stats_json=json.dumps(stats)).SerializeToString()
