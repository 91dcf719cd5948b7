"""How many batches to prepare ahead: as many as pass while the shards prepare one.

A batch prepared d ahead has the time of d steps until its pull. So d >= seconds of a prepare / seconds of a step, and
somewhat more, because both vary: the prepare's time is taken as its smoothed mean, a quarter more, and twice its
smoothed deviation (as RFC 6298 estimates, section 2). While prepares are late the steps take longer, and the quarter is
what makes the depth grow then. Too deep costs RAM on the shards, where prepared rows stay; too shallow costs time. So
it grows at once and shrinks by one after a while. It changes speed, never a value.
"""

from __future__ import annotations

import math

SHALLOWEST, DEEPEST = 1, 8
START = 2
SHRINK_AFTER_STEPS = 50
MARGIN = 1.25


class Depth:
    """Finds the depth for the next step from the times of the last ones."""

    def __init__(self) -> None:
        self.now = START
        self._prepare_s = self._deviation_s = self._step_s = 0.0
        self._known = False
        self._too_deep_steps = 0

    def observe(self, prepare_s: float, step_s: float) -> None:
        """Takes in one step: the seconds that its prepare took, and the seconds since the step before it."""
        if self._known:
            self._deviation_s += (abs(prepare_s - self._prepare_s) - self._deviation_s) / 4
            self._prepare_s += (prepare_s - self._prepare_s) / 8
            self._step_s += (step_s - self._step_s) / 8
        else:
            self._known = True
            self._prepare_s, self._deviation_s, self._step_s = prepare_s, prepare_s / 2, step_s
        wanted = self._wanted()
        self._too_deep_steps = self._too_deep_steps + 1 if wanted < self.now else 0
        if wanted > self.now:
            self.now = wanted
        elif self._too_deep_steps == SHRINK_AFTER_STEPS:
            self.now -= 1
            self._too_deep_steps = 0

    def _wanted(self) -> int:
        needed_s = MARGIN * self._prepare_s + 2 * self._deviation_s
        if needed_s >= DEEPEST * self._step_s:  # also where a step takes no time
            return DEEPEST
        return max(SHALLOWEST, math.ceil(needed_s / self._step_s))
