"""All that a shard serves of checkpoints: its part of one, and the whole of one where it is a service by itself."""

from __future__ import annotations

from ps.config import ServiceConfig
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.server.checkpoints.alone import AloneShard
from ps.server.checkpoints.parts import Parts
from ps.server.checkpoints.service import ServiceCheckpoints
from ps.server.gate.dispatch import Handler
from ps.server.handlers.checkpoints import PartCalls
from ps.server.handlers.service import ShardService
from ps.wire import methods
from ps.wire.methods import Method


class ShardCheckpoints:
    """The checkpoints of one shard."""

    def __init__(
        self, service: ShardService, config: ServiceConfig, clock: Clock, alone: bool, files: Files | None = None
    ) -> None:
        """alone: whether the shard is a service by itself, which keeps the rhythm of `checkpoint.every_s`."""
        self.parts = Parts(service, files, clock)
        calls = PartCalls(service, self.parts)
        own: dict[Method, Handler] = {
            methods.CHECKPOINT_PART: calls.write,
            methods.KEEP_PART: calls.keep,
            methods.RESTORE_PART: calls.restore,
        }
        quiet = config if alone else config.having(checkpoint={"every_s": None})
        self.service = ServiceCheckpoints(AloneShard(service, own), quiet, clock, files)
        self.handlers: dict[Method, Handler] = {
            **own,
            methods.CHECKPOINT: self.service.checkpoint,
            methods.RESTORE: self.service.restore,
        }

    def stop(self) -> None:
        """Gives up what is under way, and begins nothing more by itself."""
        self.parts.close()
        self.service.stop()
