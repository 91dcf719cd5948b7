"""Which checkpoint a path means."""

from __future__ import annotations

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.manifest import NAME
from ps.errors import NotFound


def split(url: str) -> tuple[str, str | None]:
    """Returns the folder of checkpoints that a path or URL means, and the name of the one if it is one of them."""
    folder, slash, last = url.rstrip("/").rpartition("/")
    if not NAME.fullmatch(last):
        return url, None
    if folder.endswith(":/"):  # memory://NAME
        return folder + slash, last
    return folder or slash or ".", last


def name_at(checkpoints: Checkpoints, name: str | None) -> str:
    """Returns the name, or that of the newest checkpoint. Raises NotFound where there is none."""
    if name is not None:
        return name
    newest = checkpoints.newest()
    if newest is None:
        raise NotFound(
            f"there is no whole checkpoint in {checkpoints.url}: give the folder that checkpoints were made in, or one "
            "of them"
        )
    return newest.name
