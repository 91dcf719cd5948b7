"""`psctl tables`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.options import ANSWER_TIMEOUT_S, DEFAULT_NAME, Address, Json, Name, TimeoutS
from ps.cli.output import print_json, print_lines, screen
from ps.cli.screens.layout import columns, cut
from ps.cli.screens.numbers import NOTHING, count, nbytes
from ps.cli.survey import Survey, address_of, look
from ps.errors import TableNotFound

if TYPE_CHECKING:
    from ps.client.reports import TierShare

PLACE = 50


def tables(
    table: Annotated[str, typer.Argument(help="Show only this table, with all its settings.")] = "",
    name: Name = DEFAULT_NAME,
    address: Address = "",
    as_json: Json = False,
    timeout_s: TimeoutS = ANSWER_TIMEOUT_S,
) -> None:
    """Shows the tables: their settings, and their rows and bytes by tier.

    --json: {tables: {name: {config, tiers: {tier: {rows, bytes}}}}, shards_that_answer, shards}.
    """
    survey = look(address_of(name, address), timeout_s)
    if table and table not in survey.tables:
        raise TableNotFound(f"no table {table!r} (there are: {', '.join(sorted(survey.tables)) or 'none'})")
    names = [table] if table else sorted(survey.tables)
    if as_json:
        print_json(
            {
                "tables": {name: _report(survey, name) for name in names},
                "shards_that_answer": len(survey.stats),
                "shards": len(survey.shards),
            }
        )
        return
    lines = _overview(survey, names)
    if table:
        settings = survey.tables[table].model_dump(mode="json", exclude={"name"})
        lines += ["", *columns([(key, str(value)) for key, value in settings.items()], left=2)]
    missing = len(survey.shards) - len(survey.stats)
    if missing:
        lines.append(f"without {missing} shards that do not answer: psctl status says why")
    print_lines(cut(lines, screen().width))


def _overview(survey: Survey, names: list[str]) -> list[str]:
    if not names:
        return ["no tables yet: client.create_table makes one"]
    rows: list[tuple[str, ...]] = [("table", "dim", "optimizer", "cold", "tier", "rows", "bytes", "bytes a row")]
    for name in names:
        config = survey.tables[name]
        cold = NOTHING if config.cold is None else config.cold.kind
        about: tuple[str, ...] = (name, str(config.dim), config.optimizer.kind, cold)
        for share in _shares(survey, name):
            a_row = f"{share.nbytes / share.rows:,.0f}" if share.rows else NOTHING
            rows.append((*about, share.tier, count(share.rows), nbytes(share.nbytes), a_row))
            about = ("", "", "", "")
    return columns(rows, left=5)


def _report(survey: Survey, name: str) -> dict[str, object]:
    shares = _shares(survey, name)
    return {
        "config": survey.tables[name].model_dump(mode="json"),
        "tiers": {share.tier: {"rows": share.rows, "bytes": share.nbytes} for share in shares},
    }


def _shares(survey: Survey, name: str) -> list[TierShare]:
    from ps.client.reports import tiers

    return [share for share in tiers(survey.stats) if share.table == name]
