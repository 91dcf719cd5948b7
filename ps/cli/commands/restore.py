"""`psctl restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from ps.cli.options import DEFAULT_NAME, Address, Json, Name
from ps.cli.output import out, print_json
from ps.cli.progress import bar
from ps.cli.survey import address_of

PLACE = 61


def restore(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A checkpoint, FOLDER/NAME; or FOLDER, and it is the newest there.")
    ],
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="V", help="With --log: the last version to carry out; of several shards 0=V,1=W,..."
        ),
    ] = "",
    log: Annotated[
        str,
        typer.Option("--log", metavar="FOLDER", help="The log.path of the service that was saved: carried out, too."),
    ] = "",
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table", metavar="NAME[=NEW]", help="Only this table, called NEW here; may be given several times."
        ),
    ] = None,
    values_only: Annotated[bool, typer.Option("--values-only", help="Without optimizer state.")] = False,
    name: Name = DEFAULT_NAME,
    address: Address = "",
    as_json: Json = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds.")] = 3600.0,
) -> None:
    """Fills a new service from a checkpoint.

    With as many shards as the checkpoint it becomes exactly the service that was saved. With another number of shards,
    --table or --values-only, the rows are loaded: their values, optimizer state and importance are the same, the rest
    begins again.

    --json: {name, exact, versions}; versions by shard.
    """
    import ps

    versions = _versions(at)
    tables = dict(_pair(each) for each in table or ())
    with ps.connect(address_of(name, address)) as client, bar("restore") as told:
        result = client.restore(
            path,
            at=versions,
            log=log or None,
            tables=tables or None,
            values_only=values_only,
            timeout_s=timeout_s,
            told=told,
        )
    if as_json:
        print_json(result)
    else:
        how = "exactly" if result["exact"] else "row by row"
        versions_said = ", ".join(f"{version:,}" for version in result["versions"])
        out.print(f"{result['name']} is restored, {how}; versions of the shards: {versions_said}", markup=False)


def _versions(text: str) -> int | dict[int, int] | None:
    """Returns what --at means: a version, or one for each shard."""
    if not text:
        return None
    try:
        if "=" not in text:
            return int(text)
        return {int(shard): int(version) for shard, version in (each.split("=") for each in text.split(","))}
    except ValueError:
        raise typer.BadParameter(f"--at {text!r}: give a version, or one for each shard: 0=1200,1=1187") from None


def _pair(text: str) -> tuple[str, str]:
    old, is_new, new = text.partition("=")
    if not old or (is_new and not new):
        raise typer.BadParameter(f"--table {text!r}: give NAME, or NAME=NEW")
    return old, new or old
