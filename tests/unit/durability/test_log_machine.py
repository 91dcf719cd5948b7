"""Whatever happens to the host, what was acknowledged is in the log, which is always a prefix of what was written."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ps.durability.log.log import Mode, WriteLog
from ps.errors import DiskError, LogFailed
from tests.files import Crashed, MemoryFiles
from tests.unit.durability.logs import Bytes, by_hand, opened, recovered

soon = st.integers(1, 12)
payloads = st.builds(lambda n, byte: bytes([byte]) * n, st.integers(0, 120), st.integers(1, 255))


class LogMachine(RuleBasedStateMachine):
    """A log against a list."""

    log: WriteLog | None = None

    @initialize(mode=st.sampled_from(Mode), seed=st.integers(0, 2**32))
    def begin(self, mode: Mode, seed: int) -> None:
        self.files = MemoryFiles(random.Random(seed))
        self.mode = mode
        self.written: list[bytes] = []
        """Every payload that may be in the log, by version."""
        self.promised = 0
        """What must be there after a crash."""
        self.answered = 0
        """What must be there after the process was killed."""
        self.checkpoint = 0
        self.waits: list[tuple[int, Future[None]]] = []
        self.open()

    def open(self) -> None:
        self.waits = []
        self.log = opened(self.files, self.mode, after=self.checkpoint, segment_bytes=200, start=by_hand)
        self.promised = self.answered = len(self.written)

    # what is done to a log

    @precondition(lambda self: self.log)
    @rule(payloads=st.lists(payloads, min_size=1, max_size=4), crash=st.none() | soon)
    def append(self, payloads: list[bytes], crash: int | None) -> None:
        for payload in payloads:
            self.log.append(len(self.written) + 1, Bytes(payload[:5], payload[5:]))
            self.written.append(payload)
            self.waits.append((len(self.written), self.log.durable(len(self.written))))
        with self.crashing(crash):
            self.log.write_group()

    @precondition(lambda self: self.log)
    @rule(crash=st.none() | soon)
    def sync(self, crash: int | None) -> None:
        with self.crashing(crash):
            try:
                self.log.sync()
            except LogFailed:
                self.log.write_group()  # as its thread does, which is woken
                raise

    @precondition(lambda self: self.log)
    @rule(
        call=st.sampled_from(["sync", "write", "create", "sync_folder"]),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
    )
    def fail(self, call: str, number: int) -> None:
        """A call of the disk fails once, and works again."""

        def before(called: str, path: Path) -> None:
            if called == call:
                self.files.before = lambda _call, _path: None
                raise OSError(number, "it does not work", str(path))

        self.files.before = before

    @precondition(lambda self: self.log)
    @rule(behind=st.integers(0, 9), crash=st.none() | soon)
    def truncate(self, behind: int, crash: int | None) -> None:
        self.checkpoint = max(self.checkpoint, min(self.log.synced, self.answered) - behind)
        with self.crashing(crash):
            self.log.truncate(self.checkpoint)

    # what happens to its host

    @rule(crash=st.none() | soon)
    def crash(self, crash: int | None) -> None:
        """It is started again, and may go down once more while it reads."""
        self.note()
        self.down()
        with self.crashing(crash):
            self.open()

    @precondition(lambda self: self.log)
    @rule()
    def kill(self) -> None:
        self.note()
        self.files.kill()
        self.promised = self.answered
        self.check()
        self.open()

    def down(self) -> None:
        with pytest.raises(Crashed):
            self.files.crash()
        self.files.restart()
        self.check()

    def check(self) -> None:
        self.log = None
        self.files.before = lambda _call, _path: None
        records, end = recovered(self.files, after=self.checkpoint)
        assert self.promised <= end.version == self.checkpoint + len(records)
        assert records == self.written[self.checkpoint : end.version]
        self.written, self.promised = self.written[: end.version], min(self.promised, end.version)

    @contextmanager
    def crashing(self, at: int | None) -> Iterator[None]:
        self.files.crash_at = None if at is None else self.files.calls + at
        try:
            yield
        except DiskError:
            pass
        except Crashed:
            self.log = None
        self.note()
        if self.files.crash_at is not None and self.files.calls >= self.files.crash_at:
            self.down()
        self.files.crash_at = None

    def note(self) -> None:
        """Notes what has been promised."""
        if self.log is None:
            return
        if self.log.failed is not None and self.mode is Mode.INTERVAL:  # a disk that fails is a host that dies
            self.waits, self.answered = [], self.log.synced
        done = [version for version, wait in self.waits if wait.done() and wait.exception() is None]
        self.answered = max([self.answered, *done])
        self.promised = max(self.promised, self.answered if self.mode is Mode.SYNC else self.log.synced)

    def teardown(self) -> None:
        if self.log is not None:
            self.note()
            self.log.close()
            self.files.kill()
            self.promised = self.answered
            self.check()


FEW = settings(max_examples=25, stateful_step_count=20, deadline=None)
MANY = settings(max_examples=300, stateful_step_count=30, deadline=None)


def test_what_was_acknowledged_outlives_a_crash() -> None:
    run_state_machine_as_test(LogMachine, settings=FEW)


@pytest.mark.slow
def test_what_was_acknowledged_outlives_many_crashes() -> None:
    run_state_machine_as_test(LogMachine, settings=MANY)
