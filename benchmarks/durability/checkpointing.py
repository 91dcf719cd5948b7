"""Checkpoints of a service whose processes are killed: one after the other, whether it succeeds or not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import ps
from ps.durability.checkpoint.catalog import Checkpoints

PAUSE_S = 0.2
PATIENCE_S = 120.0


class Checkpointing:
    """A thread that makes checkpoints until the end of the block."""

    def __init__(self, address: str, folder: Path) -> None:
        """`folder`: the service's own, where they go."""
        self.made = self.failed = 0
        self._address, self._folder = address, folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def problems(self) -> int:
        """Reads every byte of the checkpoints that stayed; returns how many are not whole. There must be one."""
        checkpoints = Checkpoints(str(self._folder))
        return sum(bool(checkpoints.verify(each.name)) for each in checkpoints.list())

    def _run(self) -> None:
        with ps.connect(self._address) as client:
            while not self._ended.wait(PAUSE_S):
                try:
                    client.checkpoint(timeout_s=PATIENCE_S)
                    self.made += 1
                except ps.PsError:  # a process of the service was killed meanwhile
                    self.failed += 1
