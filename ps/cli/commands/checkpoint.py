"""`psctl checkpoint create`, `ls`, `verify` and `rm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.options import DEFAULT_NAME, Address, Json, Name
from ps.cli.output import out, print_json, print_lines, screen
from ps.cli.progress import bar
from ps.cli.survey import address_of
from ps.errors import InvalidArgument

if TYPE_CHECKING:
    from ps.durability.checkpoint.manifest import Summary

PLACE = 60

app = typer.Typer(
    help="Makes checkpoints of a service that goes on, and lists, verifies and removes those in a folder.\n\n"
    "A folder is a path, or a URL that fsspec knows: s3://bucket/folder. A checkpoint is FOLDER/NAME.",
    no_args_is_help=True,
)

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="The folder of checkpoints: checkpoint.path.")]
One = Annotated[
    str, typer.Argument(metavar="PATH", help="A checkpoint, FOLDER/NAME; or FOLDER, and it is the newest there.")
]
WaitS = Annotated[float, typer.Option("--timeout", min=1, help="Seconds; what is not complete by then is given up.")]


@app.command()
def create(
    folder: Annotated[
        str,
        typer.Argument(metavar="[FOLDER]", help="Where it goes; all shards must see it. Default: checkpoint.path."),
    ] = "",
    full: Annotated[
        bool, typer.Option("--full", help="All rows, also where those that have changed would do.")
    ] = False,
    name: Name = DEFAULT_NAME,
    address: Address = "",
    as_json: Json = False,
    timeout_s: WaitS = 3600.0,
) -> None:
    """Makes a checkpoint while training goes on; exit code 1, and nothing is left of it, if a shard fails.

    --json: {name}.
    """
    import ps

    with ps.connect(address_of(name, address)) as client, bar("checkpoint") as told:
        made = client.checkpoint(folder or None, full=full, timeout_s=timeout_s, told=told)
    if as_json:
        print_json({"name": made})
    else:
        out.print(made, markup=False)


@app.command()
def ls(folder: Folder, as_json: Json = False) -> None:
    """Lists the checkpoints in a folder, the oldest first. No service is asked.

    --json: {folder, checkpoints: [{name, made, service, base, shards, nbytes, tables}]}; made in seconds since 1970,
    nbytes without what it builds on.
    """
    from dataclasses import asdict

    from ps.durability.checkpoint.catalog import Checkpoints

    checkpoints = Checkpoints(folder)
    found = checkpoints.list()
    if as_json:
        print_json({"folder": checkpoints.url, "checkpoints": [asdict(each) for each in found]})
    elif found:
        _print_list(found)
    else:
        out.print(f"no checkpoints in {checkpoints.url}: psctl checkpoint create makes one", markup=False)


@app.command()
def verify(path: One, as_json: Json = False) -> None:
    """Reads every byte of a checkpoint, and of those that it builds on; exit code 1 if anything is damaged or missing.
    No service is asked.

    --json: {name, problems: [{file, byte, what}]}.
    """
    from dataclasses import asdict

    from ps.durability.checkpoint.catalog import Checkpoints
    from ps.durability.checkpoint.where import name_at, split

    folder, given = split(path)
    checkpoints = Checkpoints(folder)
    name = name_at(checkpoints, given)
    with bar(f"verifying {name}") as told:

        def read(done: int, of: int) -> None:
            told("", done, of)

        problems = checkpoints.verify(name, read)
    if as_json:
        print_json({"name": name, "problems": [asdict(problem) for problem in problems]})
    else:
        out.print("\n".join(map(str, problems)) or f"{name} is whole", markup=False)
    if problems:
        raise typer.Exit(1)


@app.command()
def rm(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Checkpoints, each FOLDER/NAME.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Removes checkpoints; one that others build on stays until these are removed. No service is asked.

    --json: {removed: [name]}.
    """
    from ps.durability.checkpoint.catalog import Checkpoints
    from ps.durability.checkpoint.where import split

    removed = []
    for path in paths:
        folder, name = split(path)
        if name is None:
            raise InvalidArgument(f"{path!r} is no checkpoint: give FOLDER/NAME, as psctl checkpoint ls shows them")
        if not yes:
            typer.confirm(f"Remove checkpoint {name} from {folder}?", abort=True, err=True)
        checkpoints = Checkpoints(folder)
        checkpoints.manifest(name)  # it is there
        checkpoints.remove(name)
        removed.append(name)
    if as_json:
        print_json({"removed": removed})
    else:
        out.print("\n".join(f"{name} is removed" for name in removed), markup=False)


def _print_list(found: Sequence[Summary]) -> None:
    from datetime import datetime

    from ps.cli.screens.layout import columns, cut
    from ps.cli.screens.numbers import NOTHING, nbytes

    rows: list[tuple[str, ...]] = [("checkpoint", "made", "service", "builds on", "tables", "shards", "bytes")]
    for each in found:
        made = datetime.fromtimestamp(each.made).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        names = ", ".join(each.tables) or NOTHING
        rows.append((each.name, made, each.service, each.base or NOTHING, names, str(each.shards), nbytes(each.nbytes)))
    print_lines(cut(columns(rows, left=5), screen().width))
