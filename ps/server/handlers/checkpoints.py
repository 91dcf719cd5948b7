"""The RPCs of one shard that concern checkpoints: CheckpointPart, KeepPart and RestorePart. They raise PsError;
`ps.server.gate.dispatch` turns it into a status."""

from __future__ import annotations

from collections.abc import Generator

from ps.server.checkpoints.filling import Wanted
from ps.server.checkpoints.parts import Parts
from ps.server.checkpoints.task import Task
from ps.server.handlers.service import ShardService
from ps.v1 import control_pb2 as control
from ps.wire import requests


class PartCalls:
    """The parts of one shard, as RPCs."""

    def __init__(self, service: ShardService, parts: Parts) -> None:
        self._service, self._parts = service, parts

    def write(self, data: bytes) -> Generator[bytes]:
        """Serves Control.CheckpointPart."""
        self._service.check_rows()  # not whether it is closed: what is restored gets a checkpoint before it opens
        request = requests.control(control.CheckpointPartRequest, data)
        yield from _followed(self._parts.write(request.url, request.name, request.base or None))

    def keep(self, data: bytes) -> bytes:
        """Serves Control.KeepPart."""
        request = requests.control(control.KeepPartRequest, data)
        if request.failed:
            self._parts.give_up(request.name)
        else:
            self._service.check_rows()
            self._parts.keep(request.url, request.name, request.truncate)
        return control.KeepPartResponse().SerializeToString()

    def restore(self, data: bytes) -> Generator[bytes]:
        """Serves Control.RestorePart."""
        self._service.check_rows()
        request = requests.control(control.RestorePartRequest, data)
        wanted = Wanted(
            url=request.url,
            name=request.name,
            exact=request.exact,
            log=request.log,
            at=request.at or None,
            tables=dict(request.tables),
            values_only=request.values_only,
        )
        yield from _followed(self._parts.restore(wanted))


def _followed(task: Task) -> Generator[bytes]:
    """Yields the messages of a task, which is given up when its caller goes."""
    try:
        yield from task.messages()
    except GeneratorExit:
        task.cancel()
        raise
