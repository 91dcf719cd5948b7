"""Runs the work that follows an applied write: evictions, promotions, moves to disk. If it fails, the write stands.

A failure is logged and counted, and degrades the shard until the same work succeeds. Called by the engine thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Aftermath:
    """Runs the work that follows the writes of one shard."""

    def __init__(self) -> None:
        self.failures = 0
        self._failing: dict[str, str] = {}

    @property
    def degraded(self) -> str | None:
        """Which work failed when it was last tried; None while all is well."""
        return next(iter(self._failing.values()), None)

    def run(self, what: str, work: Callable[[], object]) -> None:
        """Does the work and never fails. `what` names it: the same name each time that the same work is done."""
        try:
            work()
        except Exception as error:
            self.failures += 1
            self._failing[what] = f"{what} failed after a write, which stands: {type(error).__name__}: {error}"
            log.exception("%s failed after a write, which stands", what)
        else:
            self._failing.pop(what, None)

    def forget(self, whose: str) -> None:
        """Notes that nothing of this failing work will be tried again: work whose name begins so."""
        for what in [what for what in self._failing if what.startswith(whose)]:
            del self._failing[what]
