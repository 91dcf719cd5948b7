"""The service that a run uses: a running one, or shards that are launched for as long as the training takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

import ps
from ps.errors import InvalidArgument
from worker.train.scratch import scratch_folder

out = Console()


@contextmanager
def disk_folder(disk: Path | None, no_disk: bool) -> Iterator[Path | None]:
    """Yields where local shards keep rows on disk: the folder asked for, else a temporary one, removed at the end."""
    if no_disk and disk is not None:
        raise InvalidArgument(f"--disk {disk} and --no-disk: choose one")
    if no_disk or disk is not None:
        yield disk and disk.expanduser().absolute()
        return
    with scratch_folder() as folder:
        yield folder


@contextmanager
def service_address(service: str, local: int, disk: Path | None, no_disk: bool) -> Iterator[str]:
    """Yields the address of a running service, or of one that is launched for as long as the training takes."""
    if bool(service) == bool(local):
        raise InvalidArgument("say where the rows live: --service HOST:PORT, or --local N to launch N shards here")
    if service:
        if disk is not None or no_disk:
            raise InvalidArgument("--disk and --no-disk are for --local: a running service has its own disk_path")
        yield service
        return
    with disk_folder(disk, no_disk) as folder, _launched(local, folder) as address:
        yield address


@contextmanager
def _launched(shards: int, folder: Path | None) -> Iterator[str]:
    with out.status(f"launching {shards} shards on Ray..."):
        running = ps.launch(shards=shards, config=ps.ServiceConfig(disk=ps.DiskConfig(path=folder)))
    with running:
        out.print(f"{shards} shards at {running.address}, metrics at {', '.join(running.metrics_addresses)}")
        out.print(f"rows on disk: below {folder}" if folder else "all rows in RAM", highlight=False)
        yield running.address
