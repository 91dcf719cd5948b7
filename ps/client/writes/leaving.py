"""What a process says, and how it ends, when writes of its clients have not ended or have failed unheard.

At the end of the interpreter each client's background writes have GRACE_S to end. Then their calls are ended, what is
known of every write that is not applied everywhere is said on stderr, and the exit status is not 0. A second Ctrl-C
ends the process at once.
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
"""Long enough for a push to a shard that lives, short enough for whoever has pressed Ctrl-C."""
QUIET_S = 0.5
"""A part of the grace: what takes no longer is not worth a line."""
MOST_FAILED = 1000
"""Failures that nobody asks about and that are kept to be told."""

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_failed: list[Outcome] = []
_interrupted: dict[Says, None] = {}


def watch(connection: Connection) -> None:
    """Has the connection's writes looked after at the end, from now on."""
    _connections.add(connection)


def failed(outcome: Outcome) -> None:
    """A call of the background has raised; told at the end unless somebody hears of it before."""
    _failed[:] = [known for known in _failed[-MOST_FAILED:] if not known.heard]
    if not outcome.heard:
        _failed.append(outcome)


def interrupted(write: Says) -> None:
    """A write of the foreground was left by what no service raises, as Ctrl-C."""
    _interrupted[write] = None


def ended(write: Says) -> None:
    """A write has its answer, perhaps at another attempt."""
    _interrupted.pop(write, None)


def _forget() -> None:
    """Drops in a forked child what is the parent's."""
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
    """Returns the interrupted writes but for those that have ended well by themselves."""
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
    """Sets it to 120, as Python's documentation of `sys.exit` says it of an error in flushing the standard streams: of
    all that may run here this alone changes the status and lets the other handlers of the end run, as `os._exit` does
    not."""
    sys.stdout = _Unflushed(sys.stdout)
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, _WritesLost):
            before(unraisable)

    sys.unraisablehook = hook


class _WritesLost(Exception):
    pass


class _Unflushed:
    """A stream that is as it was, but for the error at its last flush."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self._stream.flush()
        raise _WritesLost
