"""The processes of `crash`, and what looks after them: it starts, kills and restarts shards, coordinator and trainers,
and tells each where the others are, as Ray does."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from benchmarks.durability.lines import packed, unpacked
from benchmarks.durability.pushes import TRAINERS, Pushes, told
from benchmarks.harness.processes import Child, child
from ps.address import parse
from ps.config import ServiceConfig
from ps.wire.routing import ShardInfo


class Process:
    """A child process that can be killed and started again."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._stack = ExitStack()
        self.child: Child = self._stack.enter_context(child(module, *arguments))

    def kill(self) -> None:
        """Kills the process, if it lives, and takes its end up."""
        with suppress(ProcessLookupError):  # it is killed already
            os.kill(self.child.pid, signal.SIGKILL)
        self._stack.close()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.child.pid, number)

    def ended(self, timeout_s: float) -> bool:
        """Waits for its end; returns whether it came."""
        descriptor = os.pidfd_open(self.child.pid)
        try:
            return bool(select.select([descriptor], [], [], timeout_s)[0])
        finally:
            os.close(descriptor)


class Fleet:
    """A service of several shards with a coordinator, and its trainers."""

    def __init__(self, folder: Path, config: ServiceConfig, pushes: Pushes) -> None:
        """`folder`: for what all processes share."""
        self._settings, self._pushes = config.to_json(), pushes
        self._reached = folder / "reached"
        self._told = folder / "told"
        self.told = told(self._told)
        self.lives = [0] * TRAINERS
        self.shards: list[Process] = []
        self._starting = ThreadPoolExecutor(1)
        self._spare = self._starting.submit(self._loaded)
        self.trainers: list[Process] = []
        try:
            for shard in range(pushes.shards):
                self.shards.append(self._shard(shard))
            self.coordinator = self._coordinator(0)
            self._settle(f"assemble {packed([self._info(shard) for shard in range(pushes.shards)])}")
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """The coordinator's address, which stays."""
        return self.coordinator.child.address

    @property
    def reached(self) -> Sequence[str]:
        """The kill points that were reached, in their order."""
        return self._reached.read_text(encoding="utf-8").splitlines() if self._reached.exists() else []

    def start_trainers(self) -> None:
        """Starts all trainers."""
        self.trainers = [self._trainer(number) for number in range(TRAINERS)]

    def restart_shard(self, shard: int) -> None:
        """Starts a shard that has ended, and tells the others where it is."""
        self.shards[shard] = self._shard(shard)
        self._settle(f"replace {packed(self._info(shard))}")

    def dies_at_start(self, shard: int, point: str, times: int) -> bool:
        """Starts a shard that has ended, and returns whether it died at that point of its start."""
        before = len(self.reached)
        self._shard(shard, point, str(times)).kill()
        return len(self.reached) > before

    def restart_coordinator(self) -> None:
        """Starts the coordinator again, at its port."""
        self.coordinator = self._coordinator(parse(self.address)[1])
        reports = [unpacked(shard.child.ask("report")) for shard in self.shards]
        self._settle(f"adopt {packed(reports)}")

    def restart_trainer(self, trainer: int) -> None:
        """Starts the next life of a trainer."""
        self.lives[trainer] += 1
        self.trainers[trainer] = self._trainer(trainer)

    def signal_trainers(self, number: signal.Signals, but: int | None = None) -> None:
        """Stops all trainers, or has them go on; all but one that has ended."""
        for trainer, process in enumerate(self.trainers):
            if trainer != but:
                process.signal(number)

    def close(self) -> None:
        """Kills all processes."""
        for process in [*self.trainers, *self.shards, *([self.coordinator] if hasattr(self, "coordinator") else [])]:
            process.kill()
        self._spare.result().kill()
        self._starting.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shard(self, shard: int, *die: str) -> Process:
        """Has the spare process be a shard, and loads the next one meanwhile."""
        process, self._spare = self._spare.result(), self._starting.submit(self._loaded)
        address = process.child.ask(" ".join([str(shard), *die]))
        if not address and not die:
            process.kill()
            raise RuntimeError(f"shard {shard} ended before it was ready; its stderr says why")
        return process

    def _loaded(self) -> Process:
        given = (self._settings, str(self._pushes.shards), str(self._reached))
        return Process("benchmarks.durability.shard", *given)

    def _coordinator(self, port: int) -> Process:
        given = (self._settings, str(self._pushes.shards), str(port), str(self._reached))
        return Process("benchmarks.durability.coordinator", *given)

    def _trainer(self, number: int) -> Process:
        place = (str(number), str(self.lives[number]), self.address, str(self._told))
        return Process("benchmarks.durability.trainer", self._pushes.to_json(), *place)

    def _info(self, shard: int) -> ShardInfo:
        info: ShardInfo = unpacked(self.shards[shard].child.ask("report")).info
        return info

    def _settle(self, line: str) -> None:
        """Has the coordinator do something, and the shards take the routing tables that come of it."""
        what, table = self.coordinator.child.ask(line).split()
        while what == "tell":
            self._tell(table)
            what, table = self.coordinator.child.ask("told").split()
        self._tell(table)

    def _tell(self, table: str) -> None:
        for shard in self.shards:
            shard.child.ask(f"routing {table}")
