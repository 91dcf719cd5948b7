"""`psctl status`."""

from __future__ import annotations

import typer

from ps.cli.options import ANSWER_TIMEOUT_S, DEFAULT_NAME, Address, Json, Name, TimeoutS
from ps.cli.output import plain, print_json, print_lines, screen
from ps.cli.screens.figures import flows, levels, total
from ps.cli.screens.status import status_screen
from ps.cli.survey import SERVING, Survey, address_of, look

PLACE = 30


def status(
    name: Name = DEFAULT_NAME, address: Address = "", as_json: Json = False, timeout_s: TimeoutS = ANSWER_TIMEOUT_S
) -> None:
    """Shows shards, tables, memory, traffic and swap on one screen.

    A shard that does not answer is DOWN, one whose rows are gone STATE_LOST, one where a write failed half-way
    POISONED, one whose log cannot be written LOG_FAILED, one whose disk is full or failing DEGRADED. Exit code 1 if any
    is in another of these states than DEGRADED. --json:
    {address, release, trouble, shards: [{shard_id, address, metrics_address, state, why, stats}], levels, since_start}.
    """
    survey = look(address_of(name, address), timeout_s)
    if as_json:
        print_json(report(survey))
    else:
        print_lines(status_screen(survey, screen()))
    if any(seen.state not in (SERVING, "DEGRADED") for seen in survey.shards):
        raise typer.Exit(1)


def report(survey: Survey) -> dict[str, object]:
    """Returns the state of the service for JSON."""
    found: dict[str, object] = plain(
        {
            "address": survey.address,
            "release": survey.release,
            "trouble": survey.trouble,
            "shards": [seen.report() for seen in survey.shards],
            "levels": levels(survey.stats).report(),
            "since_start": total(map(flows, survey.stats)),
        }
    )
    return found
