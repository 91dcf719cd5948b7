"""Long work on a thread of its own, which says how far it is: a checkpoint, a restore.

thread of the call                        thread of the task
messages(): sends what is new  <-------   tell(stage, done, of)
the caller goes: cancel()      ------->   the next `tell` raises
                               <-------   the result, or the error
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ps.errors import Unavailable
from ps.progress import Told
from ps.v1 import control_pb2 as pb

Outcome = Mapping[str, Any]
"""What can be written as JSON."""

SAYS_EVERY_S = 0.5
"""How often a caller hears of work that has nothing new to say: so both ends know that the other is there."""


class Task:
    """One piece of work. Threads: any may call `messages` and `cancel`."""

    def __init__(self, name: str, work: Callable[[Told], Outcome]) -> None:
        """Begins the work."""
        self.name = name
        self.stage, self.done_bytes, self.all_bytes = "", 0, 0
        self.result: Outcome | None = None
        self.error: BaseException | None = None
        self._ended = self._cancelled = False
        self._changed = threading.Condition()
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the work is done, or has failed."""
        return self._ended

    def cancel(self) -> None:
        """Has the work end with Unavailable at its next step."""
        self._cancelled = True

    def wait(self) -> None:
        """Waits for the end."""
        self._thread.join()

    def messages(self) -> Iterator[bytes]:
        """Yields encoded `Progress`: what is being done when that changes, and now and then; at the end the result.
        Raises the error of the work."""
        while not self._ended:
            stage = self.stage
            yield self._progress().SerializeToString()
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self.stage != stage, SAYS_EVERY_S)  # noqa: B023
        if self.error is not None:
            raise self.error
        last = self._progress()
        last.result_json = json.dumps(self.result)
        yield last.SerializeToString()

    def _progress(self) -> pb.Progress:
        return pb.Progress(stage=self.stage, done_bytes=self.done_bytes, all_bytes=self.all_bytes)

    def _tell(self, stage: str, done: int, of: int) -> None:
        if self._cancelled:
            raise Unavailable("nobody waits for this any more: it was given up")
        with self._changed:
            new, self.stage = stage != self.stage, stage
            self.done_bytes, self.all_bytes = done, max(done, of)
            if new:
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            self.result = self._work(self._tell)
        except BaseException as error:  # noqa: BLE001  it is raised where somebody waits for it
            self.error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
