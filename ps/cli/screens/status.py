"""The screen of `psctl status` as lines of text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ps.cli.output import Size
from ps.cli.screens.figures import flows, levels, total
from ps.cli.screens.layout import columns, cut, first, wrapped
from ps.cli.screens.numbers import NOTHING, count, nbytes, of_budget, percent
from ps.cli.survey import SERVING, Seen, Survey

NOTE_LINES = 4
"""Lines for what is wrong with shards, on a screen that is too small for more."""


def status_screen(survey: Survey, size: Size) -> list[str]:
    """Shows on one screen the service, its shards, what is wrong with them, its tables, its memory, and what it has
    done."""
    end = ["", *_figures(survey)]
    notes = _notes(survey, size.width)
    room = None if size.height is None else size.height - len(end) - 5  # title, blank, heads of two lists, the prompt
    if room is not None:
        spare = room - len(survey.shards) - len(_tables(survey))
        notes = first(notes, max(spare, NOTE_LINES), "lines of what is wrong: psctl status --json has all")
        room -= len(notes)
    shards, tables = _shards(survey.shards), _tables(survey)
    half = None if room is None else max(room - min(len(tables), room // 2), 2)
    shards = [shards[0], *first(shards[1:], half, "shards")]
    rest = None if room is None else max(room - len(shards), 2)
    lines = [
        title(survey),
        *shards,
        *notes,
        "",
        *([tables[0], *first(tables[1:], rest, "tiers: psctl tables has all")] if tables else ["no tables yet"]),
        *end,
    ]
    return cut(lines, size.width)


def title(survey: Survey) -> str:
    """Names the service and counts its shards by state."""
    states = Counter(seen.state for seen in survey.shards)
    release = f"embedding-ps {survey.release}" if survey.release else "embedding-ps"
    return f"{release} at {survey.address}: " + ", ".join(f"{n} {state}" for state, n in states.most_common())


def worst_first(shards: Sequence[Seen]) -> list[Seen]:
    """Puts the shards that are not well first: a list that is cut is cut at its end."""
    return sorted(shards, key=lambda seen: (seen.state == SERVING, seen.info.shard_id))


def _shards(shards: Sequence[Seen]) -> list[str]:
    """Lays out a head and a line for each shard; shards that are not well come first."""
    rows = [
        (str(seen.info.shard_id), seen.state, seen.info.address, *_shard_figures(seen)) for seen in worst_first(shards)
    ]
    return columns([("shard", "state", "address", "pushes", "rows", "RAM", "full", "disk"), *rows], left=3)


def _shard_figures(seen: Seen) -> tuple[str, str, str, str, str]:
    if seen.stats is None:
        return (NOTHING,) * 5
    now = levels([seen.stats])
    rows, full = count(sum(now.rows.values())), percent(now.ram_used, now.ram_budget or 0)
    disk = NOTHING if seen.stats["disk_bytes"] is None else nbytes(now.disk)
    return count(seen.stats["pushes"]), rows, nbytes(now.ram_used), full, disk


def _notes(survey: Survey, width: int | None) -> list[str]:
    notes = [
        f"shard {seen.info.shard_id} is {seen.state}: {seen.why}" for seen in survey.shards if seen.why is not None
    ]
    if survey.trouble is not None:
        notes.insert(0, f"addresses may be old: {survey.trouble}")
    return [line for note in notes for line in wrapped(note, width)]


def _tables(survey: Survey) -> list[str]:
    from ps.client.reports import tiers

    shares = tiers(survey.stats)
    if not shares:
        return []
    rows = [("table", "tier", "rows", "bytes", "bytes a row")]
    for share in shares:
        a_row = f"{share.nbytes / share.rows:,.0f}" if share.rows else NOTHING
        rows.append((share.table, share.tier, count(share.rows), nbytes(share.nbytes), a_row))
    return columns(rows, left=2)


def _figures(survey: Survey) -> list[str]:
    """Shows memory, traffic and swap of all shards that answer."""
    now, done = levels(survey.stats), total(map(flows, survey.stats))
    parts = ", ".join(f"{tier} {nbytes(n)}" for tier, n in now.ram.items() if n)
    lines = [f"memory   {of_budget(now.ram_used, now.ram_budget)}: {parts or 'nothing'}"]
    if any(stats["disk_bytes"] is not None for stats in survey.stats):
        lines.append(f"disk     {of_budget(now.disk, now.disk_budget)}")
    if now.gpu or now.gpu_budget:
        lines.append(f"gpu      {of_budget(now.gpu, now.gpu_budget)}")
    late = percent(done["rows_late"], done["rows_pulled"])
    lines += [
        f"traffic  {count(done['rows_pulled'])} rows pulled, {count(done['rows_pushed'])} pushed; "
        f"{nbytes(done['received_bytes'])} in, {nbytes(done['sent_bytes'])} out",
        f"swap     {count(done['rows_raised'])} rows up, {count(done['rows_demoted'])} down; "
        f"{count(done['rows_late'])} late ({late} of those pulled)",
    ]
    if done["rows_evicted"] or done["rows_refused"]:
        lines.append(f"dropped  {count(done['rows_evicted'])} rows evicted, {count(done['rows_refused'])} not admitted")
    return lines
