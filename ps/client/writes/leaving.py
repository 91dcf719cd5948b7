"""Ends a process whose clients' writes have not ended, or have failed without being asked about.

At the end of the interpreter each client's background writes have GRACE_S seconds to end. Then their calls are ended,
every write that is not known to be applied everywhere is named on stderr with its outcome on each shard, and the exit
status is not 0. A second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from ps.client.connection.pool import Outcome, Says

if TYPE_CHECKING:
    from ps.client.connection.connection import Connection

GRACE_S = 3.0
"""Seconds for writes to end: long enough for a push to a shard that is alive, short enough after a Ctrl-C."""
QUIET_S = 0.5
"""A part of GRACE_S. If writes end within it, nothing is printed."""
MOST_FAILED = 1000
"""How many failures that were never asked about are kept to be printed."""

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_failed: list[Outcome] = []
_interrupted: dict[Says, None] = {}


def watch(connection: Connection) -> None:
    """Registers a connection, so that its writes are looked after at the end of the process."""
    _connections.add(connection)


def failed(outcome: Outcome) -> None:
    """Notes that a background call has raised; it is printed at the end unless its future is asked before."""
    _failed[:] = [known for known in _failed[-MOST_FAILED:] if not known.heard]
    if not outcome.heard:
        _failed.append(outcome)


def interrupted(write: Says) -> None:
    """Notes that a signal such as Ctrl-C has interrupted the caller of a write."""
    _interrupted[write] = None


def ended(write: Says) -> None:
    """Notes that a write has its answer, perhaps after a retry."""
    _interrupted.pop(write, None)


def _forget() -> None:
    """Drops the parent's registered writes in a forked child."""
    _failed.clear()
    _interrupted.clear()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def _leave() -> None:
    connections = [connection for connection in list(_connections) if connection.is_mine()]
    waiting = [task for connection in connections for task in connection.tasks.unfinished()]
    left = [call for connection in connections for call in connection.tasks.left()]
    if waiting or left:
        _await([*waiting, *left], len(waiting) + len(_not_applied()))
    told = [*(outcome for outcome in _failed if not outcome.heard), *(t.outcome for t in waiting if not t.done())]
    lines = [*map(str, told), *(f"{write.fate()} (interrupted)" for write in _not_applied())]
    for connection in connections:
        connection.abort()
    if lines:
        _say("embedding-ps: this process ends with writes that failed, or are not known to be applied:")
        for line in lines:
            _say(f"  {line}")
        _set_exit_status()


def _not_applied() -> list[Says]:
    """Returns the interrupted writes that have not ended well by themselves."""
    return [write for write in list(_interrupted) if not write.is_applied]


def _await(waiting: Sequence[Future[Any]], writes: int) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process
    if wait(waiting, QUIET_S).not_done:
        what = "1 write" if writes == 1 else f"{writes} writes"
        _say(f"embedding-ps: waits {GRACE_S:g} s for {what} under way; Ctrl-C ends the process at once")
        wait(waiting, GRACE_S - QUIET_S)


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        return  # closed: there is nobody to tell


def _set_exit_status() -> None:
    """Sets the exit status to 120, by an error in flushing the standard streams, as Python documents it for `sys.exit`.
    Nothing else that may run here changes the status and lets the other exit handlers run, as `os._exit` would not."""
    sys.stdout = _Unflushed(sys.stdout)
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, _WritesLost):
            before(unraisable)

    sys.unraisablehook = hook


class _WritesLost(Exception):
    pass


class _Unflushed:
    """A stream that works as before, but raises an error at its last flush."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self._stream.flush()
        raise _WritesLost
