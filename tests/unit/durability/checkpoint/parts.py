"""Parts of checkpoints as a shard would give them, from a plain dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import ps
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.manifest import Manifest, Part, Routing
from ps.kernels.ranking import score
from ps.storage.tier import Records

DIM = 3
CONFIG = ps.TableConfig(name="t", dim=DIM, optimizer=ps.SGD(lr=1.0))
NEVER = {
    "stamps_C": np.empty(0, np.int64),
    "ranks_C": np.empty(0, np.int64),
    "stamps_LC": np.empty((score.LOTS, 0), np.int64),
    "ranks_LC": np.empty((score.LOTS, 0), np.int64),
}


@dataclass(frozen=True)
class Row:
    """A row, by its id."""

    value: float
    stamp: int
    marks: int = score.USED | score.DIRTY
    score: float = 1.0


@dataclass
class Shard:
    """What one shard saves: one table in RAM."""

    version: int = 1
    now: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    removed: Sequence[int] = ()
    since: int | None = None
    removed_since: int = 0
    born: int = 1
    config: ps.TableConfig = CONFIG
    cuts: Mapping[str, Any] = field(default_factory=lambda: NEVER)

    def state(self) -> dict[str, Any]:
        table = {
            "config": self.config.to_json(),
            "born": self.born,
            "since": self.since,
            "ranking.now": self.now,
            "ranking.per_tick": 1,
            "steps.total": self.version,
            "removed.ids_N": np.array(self.removed, np.int64),
            "removed.since": self.removed_since,
            **{f"dropped.cuts.{name}": array for name, array in self.cuts.items()},
        }
        return {"commit.version": self.version, **{f"tables.0.{name}": value for name, value in table.items()}}


def records_of(rows: Mapping[int, Row], dim: int = DIM) -> tuple[Records, np.ndarray[Any, np.dtype[np.uint16]]]:
    ids, own = list(rows), list(rows.values())
    values_ND = np.repeat(np.array([row.value for row in own], np.float32)[:, None], dim, axis=1)
    records = Records(
        np.array(ids, np.int64),
        np.ascontiguousarray(values_ND).view(np.uint8).reshape(len(ids), 4 * dim),
        np.array([row.score for row in own], np.float32),
        np.array([row.stamp for row in own], np.uint32),
    )
    return records, np.array([row.marks for row in own], np.uint16)


def write_part(
    there: Checkpoints,
    name: str,
    shard: Shard,
    number: int = 0,
    base: str | None = None,
    disk: Path | None = None,
) -> Part:
    """Writes the rows with stamps that it should have, in three pieces."""
    writer = there.part(name, number, base)
    try:
        writer.take_state(shard.version, shard.state())
        if disk is not None:
            writer.take_disk(disk)
        items = [(id_, row) for id_, row in shard.rows.items() if row.stamp >= (shard.since or 0)]
        for k in range(3):
            if items[k::3]:
                writer.take_rows("t", *records_of(dict(items[k::3]), shard.config.dim))
        return writer.finish()
    except Exception:
        writer.abort()
        raise


def manifest_of(name: str, parts: Sequence[Part], base: str | None = None, service: str = "") -> Manifest:
    tables = {"t": CONFIG.to_json()}
    return Manifest(name, 1.5, "0.1", service, Routing(len(parts)), tables, tuple(parts), base)


def make(there: Checkpoints, *shards: Shard, base: str | None = None, service: str = "") -> str:
    """Makes a whole checkpoint; returns its name."""
    name = there.new_name()
    parts = [write_part(there, name, shard, number, base) for number, shard in enumerate(shards)]
    there.complete(name, manifest_of(name, parts, base, service))
    return name


def rows_in(there: Checkpoints, name: str, shard: int = 0) -> dict[int, Row]:
    """Returns what a shard would get back."""
    found: dict[int, Row] = {}
    for records, marks_N in there.source(name, shard).rows("t"):
        for i, id_ in enumerate(records.ids_N.tolist()):
            value_D = records.rows_NB[i].copy().view(np.float32)
            assert (value_D == value_D[0]).all()
            assert id_ not in found, "it comes twice"
            row = Row(float(value_D[0]), int(records.stamps_N[i]), int(marks_N[i]), float(records.scores_N[i]))
            found[id_] = row
    return found
