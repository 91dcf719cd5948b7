"""Retries until an attempt succeeds, on a thread: so an actor that was restarted finds the others while it serves
already."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ps.runtime.clock import Clock

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0

log = logging.getLogger(__name__)


def keep_trying(what: str, attempt: Callable[[], object], stopped: threading.Event, clock: Clock) -> threading.Thread:
    """Calls attempt() on a daemon thread until it raises nothing or `stopped` is set; pauses double in between."""

    def run() -> None:
        pause_s = FIRST_PAUSE_S
        while not stopped.is_set():
            try:
                attempt()
            except Exception as error:  # noqa: BLE001  whatever it is: to give up would leave the service down for good
                log.warning("%s: %s: %s; trying again in %g s", what, type(error).__name__, error, pause_s)
            else:
                log.info("%s: done", what)
                return
            clock.wait(stopped, pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    return thread
