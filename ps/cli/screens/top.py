"""A frame of `psctl top` as lines of text, from the looks so far. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ps.cli.output import Size
from ps.cli.screens.figures import Flows, levels
from ps.cli.screens.history import History, Moment
from ps.cli.screens.layout import bar, columns, cut, first, sparkline, wrapped
from ps.cli.screens.numbers import NOTHING, count, nbytes, of_budget, percent
from ps.cli.screens.status import title, worst_first
from ps.cli.survey import Seen

SPARKS, BAR = 40, 20
"""The width of sparklines where the screen has no bounds, and of bars."""


class Series(NamedTuple):
    """One line of the frame: a figure and its past."""

    name: str
    value: Callable[[Moment], float | None]
    shown: Callable[[float], str]


def _flow(name: str) -> Callable[[Moment], float | None]:
    return lambda moment: None if moment.rates is None else moment.rates[name]


def on_time(flows: Flows | None) -> float | None:
    """Returns the share of the pulled rows that did not wait for the disk, in percent."""
    if flows is None or not flows["rows_pulled"]:
        return None
    return 100 * max(1 - flows["rows_late"] / flows["rows_pulled"], 0)


def in_ram(flows: Flows | None) -> float | None:
    """Returns the share of the pulled rows that had not been brought up from disk, in percent."""
    if flows is None or not flows["rows_pulled"]:
        return None
    return 100 * max(1 - flows["rows_raised"] / flows["rows_pulled"], 0)


SERIES = (
    Series("pushes/s", _flow("pushes"), count),
    Series("rows pulled/s", _flow("rows_pulled"), count),
    Series("rows pushed/s", _flow("rows_pushed"), count),
    Series("bytes in/s", _flow("received_bytes"), nbytes),
    Series("bytes out/s", _flow("sent_bytes"), nbytes),
    Series("rows up/s", _flow("rows_raised"), count),
    Series("rows down/s", _flow("rows_demoted"), count),
    Series("hit rate: in RAM", lambda moment: in_ram(moment.rates), lambda value: f"{value:.1f} %"),
    Series("hit rate: on time", lambda moment: on_time(moment.rates), lambda value: f"{value:.1f} %"),
    Series("rows late/s", _flow("rows_late"), count),
    Series("memory", lambda moment: moment.levels.ram_used, nbytes),
)


def top_screen(history: History, size: Size) -> list[str]:
    """Shows memory against budget, a line for each series with its past, and the shards."""
    lines = [title(history.last.survey), *_memory(history.last), "", *_series(history, size.width), ""]
    room = None if size.height is None else max(size.height - len(lines), 2)
    notes = _notes(history.last, size.width)
    if room is not None:
        spare = room - len(history.last.survey.shards) - 1
        notes = first(notes, max(spare, room // 3, 1), "lines of what is wrong")
        room -= len(notes)
    shards = _shards(history.last)
    lines += [shards[0], *first(shards[1:], None if room is None else room - 1, "shards"), *notes]
    return cut(lines, size.width)


def _memory(moment: Moment) -> list[str]:
    now = moment.levels
    parts = ", ".join(f"{tier} {nbytes(n)}" for tier, n in now.ram.items() if n)
    lines = [f"RAM   {_filled(now.ram_used, now.ram_budget)}", f"      {parts or 'nothing'}"]
    if any(stats["disk_bytes"] is not None for stats in moment.survey.stats):
        lines.append(f"disk  {_filled(now.disk, now.disk_budget)}")
    if now.gpu or now.gpu_budget:
        lines.append(f"GPU   {_filled(now.gpu, now.gpu_budget)}")
    return lines


def _filled(used: int, budget: int | None) -> str:
    if budget is None:
        return f"{nbytes(used)}, no bound"
    return f"{bar(used, budget, BAR)} {of_budget(used, budget)} ({percent(used, budget)})"


def _series(history: History, width: int | None) -> list[str]:
    wide = max(len(series.name) for series in SERIES)
    room = SPARKS if width is None else max(width - wide - 14, 0)
    lines = []
    for series in SERIES:
        values = [series.value(moment) for moment in history]
        now = NOTHING if values[-1] is None else series.shown(values[-1])
        lines.append(f"{series.name:<{wide}}  {now:>10}  {sparkline(values, room)}".rstrip())
    return lines


def _shards(moment: Moment) -> list[str]:
    head = ("shard", "state", "pushes/s", "pulled/s", "pushed/s", "in/s", "out/s", "RAM")
    rows = [
        (str(seen.info.shard_id), seen.state, *_rates(moment, seen), _ram(seen))
        for seen in worst_first(moment.survey.shards)
    ]
    return columns([head, *rows], left=2)


def _rates(moment: Moment, seen: Seen) -> tuple[str, str, str, str, str]:
    flows = moment.by_shard.get(seen.info.shard_id)
    if flows is None:
        return (NOTHING,) * 5
    pushes, pulled, pushed = (count(flows[name]) for name in ("pushes", "rows_pulled", "rows_pushed"))
    return pushes, pulled, pushed, nbytes(flows["received_bytes"]), nbytes(flows["sent_bytes"])


def _ram(seen: Seen) -> str:
    return NOTHING if seen.stats is None else nbytes(levels([seen.stats]).ram_used)


def _notes(moment: Moment, width: int | None) -> list[str]:
    notes = [f"shard {seen.info.shard_id}: {seen.why}" for seen in moment.survey.shards if seen.why is not None]
    if moment.survey.trouble is not None:
        notes.append(f"addresses may be old: {moment.survey.trouble}")
    return [line for note in notes for line in wrapped(note, width)]
