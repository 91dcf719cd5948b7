"""Thresholds: the size from which gradients are sent, fixed or estimated so that a given share of them is sent.

Sorting 100,000 rows of gradients in every step costs more than it saves. So a threshold is found once, in a sample, and
is a plain comparison for the steps that follow (Gupta et al., "Training Recommender Systems at Scale", KDD 2021:
dynamic communication thresholding). Between two estimates the share sent changes with the gradients, and with the
residuals, which build up for about 1 / density steps; if it has changed much, the next estimate comes sooner. What is
held back grows until it passes a threshold, but only if the row comes again often enough: `Hold` bounds it for other
rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ps.arrays import Rows
from ps.errors import ConfigError

By = Literal["rows", "elements"]

SMALLEST = np.finfo(np.float32).tiny
"""The least threshold that is estimated for a density below 1, so that zeros are never selected."""
DRIFT = 1.25
"""The factor by which the share sent may be off before the threshold is estimated sooner."""
SOONER = 8
"""The factor by which an estimate comes sooner. So gradients that fit no threshold, such as equal ones, are not sampled
in every step."""
ESTIMATE_AGAIN = 0.9
"""During the warm-up a threshold is estimated again when the density has fallen to this share of the one that it was
estimated for."""


@dataclass(frozen=True)
class Relaxed:
    """Pushes important rows that have converged in every `every`-th step only; until then their gradients are held
    back.

    A row has converged when the running mean of |gradient| / |value| over the steps that have it is `ratio` at most.
    Over the first `window` steps it is the plain mean, and the row does not count as converged before; from then on it
    is an exponential one, mean += (x - mean) / window. The gradient is that of the step's rows, as `loss.backward`
    leaves it, so with a mean loss it falls with the size of the batch. `ps.nn.sparsify.relaxation` has the formulas.
    New rows are pushed in every step, and so is a row whose gradients grow again.

    The statistics of a row take 48 bytes, those of all rows `max_bytes` at most. Beyond that the rows that no step has
    had for the longest are forgotten: they are pushed in every step again, until they have been seen `window` times.
    """

    every: int = 8
    """A row that waits is pushed in each `every`-th step; 1: no row waits."""
    ratio: float = 0.01
    share: float = 0.1
    """The share of a shard's rows of the table, in (0, 1], that count as important; other rows do not wait."""
    window: int = 16
    """The number of steps with a row before it may wait, and the window of its running mean."""
    max_bytes: int = 64 << 20
    """Bound on the bytes of statistics."""

    def __post_init__(self) -> None:
        _check_whole("Relaxed.every", self.every, 1)
        _check_number("Relaxed.ratio", self.ratio, "a share from 0 to below 1", lambda r: 0 <= r < 1)
        _check_number("Relaxed.share", self.share, "a share above 0 and at most 1", lambda s: 0 < s <= 1)
        _check_whole("Relaxed.window", self.window, 1)
        _check_whole("Relaxed.max_bytes", self.max_bytes, 48)


@dataclass(frozen=True)
class Hold:
    """Bounds what may be held back of a row, and for how long. A row that would go beyond is sent at once, however
    small its gradients are.

    A row is sent whole, in a step that names it,

    - when more would be held of it than `share` of what there is of it: |held|² > share² (pushed + |held|²), pushed
      being the sum of the |gradient|² that were sent of it. So rows that few pushes have named are sent, and the longer
      a row has been trained, the more of it may wait. With Adagrad a value lags by about this share of lr;
    - when no step has named it for `steps` steps: it is not soon to come again;
    - when something has been held of it for `steps` steps. Rows that no step names any more are sent by their ids when
      that is over, several steps' together; but not in `Synchronous` mode, where a push has its place in a round: there
      they go when they come again, or with `flush`.
    """

    share: float = 0.2
    steps: int = 8

    def __post_init__(self) -> None:
        _check_number("Hold.share", self.share, "a share above 0 and below 1", lambda s: 0 < s < 1)
        _check_whole("Hold.steps", self.steps, 1)


@dataclass(frozen=True)
class TopK:
    """Sends the largest gradients, about the share `density` of them, and those that `hold` does not let wait.

    The threshold is estimated from a sample every `reestimate_every` steps; at the very beginning, while residuals
    build up, after 1, 2, 4, 8, ... steps; after an eighth of the steps if the share sent since the last estimate is
    DRIFT times the density or more, or 1 / DRIFT of it or less. Gradients of equal size are selected together, so more
    are sent where many are alike.

    Warm-up: in step t < `warm_up` the density is density ** (t / warm_up): from 1 it falls exponentially (Lin et al.,
    "Deep Gradient Compression", ICLR 2018, section 3.3, there once an epoch and here step by step).
    """

    density: float = 0.1
    """The share of the rows, or of their elements, in (0, 1]. Rows that must be sent anyway are not counted."""
    by: By = "rows"
    """rows: by the norm of a row's gradient. elements: by the absolute value of each element of it."""
    reestimate_every: int = 100
    """Steps between two estimates of the threshold."""
    sample: int = 32_768
    """How many rows or elements an estimate looks at. At density d the share sent is off by about 1 / sqrt(d *
    sample)."""
    warm_up: int = 0
    """The number of steps until the density is reached."""
    relaxed: Relaxed | None = None
    """Which rows are relaxed: these wait or are sent whatever the threshold."""
    error_feedback: bool = True
    """False: gradients that are not sent are lost. This is only for comparisons; `hold` must be None then."""
    hold: Hold | None = field(default_factory=Hold)
    """Bounds what is held. None: small gradients may be held for ever, which takes fewer bytes and loses AUC unless
    rows occur far more than 1 / density times, and not in bursts: docs/communication.md has how much. Gradients of bags
    (`pooled`) are all sent unless it is None."""

    def __post_init__(self) -> None:
        _check_number("TopK.density", self.density, "a share above 0 and at most 1", lambda d: 0 < d <= 1)
        _check_by("TopK", self.by)
        _check_whole("TopK.reestimate_every", self.reestimate_every, 1)
        _check_whole("TopK.sample", self.sample, 1)
        _check_whole("TopK.warm_up", self.warm_up, 0)
        _check_relaxed("TopK", self.relaxed)
        if self.relaxed is not None and not self.error_feedback:
            raise ConfigError("TopK.relaxed needs error_feedback: the gradients of rows that wait would be lost")
        _check_hold("TopK", self.hold)
        if self.hold is not None and not self.error_feedback:
            raise ConfigError("TopK.hold: without error_feedback nothing is held: give hold=None")

    def density_at(self, step: int) -> float:
        """Returns the share to send in step 0, 1, 2, ..."""
        return self.density if step >= self.warm_up else float(self.density ** (step / self.warm_up))


@dataclass(frozen=True)
class Threshold:
    """Sends every gradient of the size `value` or more: rows by their norm, or elements by their absolute value. 0
    sends all gradients but those of relaxed rows."""

    value: float
    by: By = "rows"
    relaxed: Relaxed | None = None
    hold: Hold | None = None
    """Bounds what is held, as in `TopK`; None: small gradients may be held for ever."""

    def __post_init__(self) -> None:
        _check_number("Threshold.value", self.value, "a number from 0 to 1e18", lambda v: 0 <= v <= 1e18)
        _check_by("Threshold", self.by)
        _check_relaxed("Threshold", self.relaxed)
        _check_hold("Threshold", self.hold)


Sparsify = TopK | Threshold


def measured(value: float, by: By) -> np.float32:
    """Returns a threshold in the measure by which gradients are compared: squared norms of rows, absolute values of
    elements."""
    size = np.float32(value * value if by == "rows" else value)
    return size if value == 0 else max(size, SMALLEST)


def kth_largest(sizes_N: Rows, density: float) -> np.float32:
    """Returns the threshold that this share of the sizes, one or more, reaches: 0 at density 1, else above 0."""
    if density >= 1:
        return np.float32(0)
    k = max(1, round(density * len(sizes_N)))
    return max(np.float32(np.partition(sizes_N, len(sizes_N) - k)[len(sizes_N) - k]), SMALLEST)


def _check_number(name: str, value: Any, wanted: str, fits: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        raise ConfigError(f"{name}: {value!r} is not {wanted}")


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: {value!r} is not a whole number from {least} on")


def _check_by(name: str, by: Any) -> None:
    if by not in ("rows", "elements"):
        raise ConfigError(f"{name}.by: {by!r}: choose 'rows' or 'elements'")


def _check_relaxed(name: str, relaxed: Any) -> None:
    if not isinstance(relaxed, Relaxed | None):
        raise ConfigError(f"{name}.relaxed: {relaxed!r}: give Relaxed(...), or None")


def _check_hold(name: str, hold: Any) -> None:
    if not isinstance(hold, Hold | None):
        raise ConfigError(f"{name}.hold: {hold!r}: give Hold(...), or None")
