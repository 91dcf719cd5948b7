"""A bar on stderr for work that takes long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ps.cli.output import err
from ps.progress import Told


@contextmanager
def bar(what: str) -> Iterator[Told]:
    """Shows a bar of bytes, until the block ends; yields the function that moves it, which is told the stage and how
    many bytes of how many are done. Nothing is shown where stderr is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def told(stage: str, done: int, of: int) -> None:
            progress.update(task, description=f"{what}: {stage}" if stage else what, completed=done, total=of or None)

        yield told
