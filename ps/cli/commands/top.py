"""`psctl top`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from ps.cli.options import ANSWER_TIMEOUT_S, DEFAULT_NAME, Address, Json, Name, TimeoutS
from ps.cli.output import out, painted, plain, print_json, print_lines, screen
from ps.cli.screens.history import History
from ps.cli.screens.top import top_screen
from ps.cli.survey import Watch, address_of
from ps.runtime.clock import SYSTEM_CLOCK
from ps.seconds import seconds

PLACE = 40


def top(
    name: Name = DEFAULT_NAME,
    address: Address = "",
    interval_s: Annotated[float, typer.Option("--interval", "-i", min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one frame, after one interval, then end.")] = False,
    as_json: Json = False,
    timeout_s: TimeoutS = ANSWER_TIMEOUT_S,
) -> None:
    """Shows what the service is doing now, refreshed every interval; Ctrl-C ends it.

    Where stdout is no terminal the frames come one after the other. --json: a line each time, {address, shards:
    [{shard_id, state, why, rates}], rates, levels}; rates are per second, null without two answers to compare.
    """
    interval_s = seconds(interval_s, "--interval")
    with suppress(KeyboardInterrupt), Watch(address_of(name, address), timeout_s) as watch:
        history = History(watch.look())
        if as_json:
            _repeat(watch, history, interval_s, once, lambda: print_json(plain(history.last.report()), lines=True))
        elif once or not out.is_terminal:
            _repeat(watch, history, interval_s, once, lambda: print_lines([*top_screen(history, screen()), ""]))
        else:
            _live(watch, history, interval_s)


def _live(watch: Watch, history: History, interval_s: float) -> None:
    from rich.live import Live

    with Live(painted(top_screen(history, screen())), console=out, screen=True, auto_refresh=False) as live:
        _repeat(
            watch,
            history,
            interval_s,
            once=False,
            show=lambda: live.update(painted(top_screen(history, screen())), refresh=True),
        )


def _repeat(watch: Watch, history: History, interval_s: float, once: bool, show: Callable[[], None]) -> None:
    """Looks at the service and shows a frame once an interval, or as soon as a look that took longer has ended."""
    while True:
        SYSTEM_CLOCK.sleep(max(history.last.survey.at_s + interval_s - SYSTEM_CLOCK.monotonic(), 0))
        history.add(watch.look())
        show()
        if once:
            return
