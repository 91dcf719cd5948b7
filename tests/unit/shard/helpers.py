"""Small shards, and what they hold in bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

import ps
from ps.kernels.ranking import score
from ps.shard import Gradients, Shard, TableIds
from ps.shard.ledger import WriteId
from ps.shard.requests import PushResult, Target
from ps.storage.residence.store import Store
from ps.table.table import Table

DIM = 4
_sequences = itertools.count(1)


def ids_of(table: str, ids: Sequence[int], counts: Sequence[int] | None = None) -> TableIds:
    return TableIds(table, np.array(ids, np.int64), None if counts is None else np.array(counts, np.uint32))


def grads_of(table: str, rows: object) -> Gradients:
    block = np.asarray(rows, np.float32)
    return Gradients(table, [block] if len(block) else [])


def a_write(worker: int = 1, sequence: int | None = None, digest: int = 0) -> WriteId:
    return WriteId(worker, next(_sequences) if sequence is None else sequence, digest)


def push(shard: Shard, target: Target, *grads: Gradients, write: WriteId | None = None) -> PushResult:
    with shard.look_ahead(target) as ahead:
        return shard.push(write or a_write(), ahead, grads)


def push_ids(shard: Shard, table: str, ids: Sequence[int], rows: object) -> PushResult:
    return push(shard, [ids_of(table, ids)], grads_of(table, rows))


def read(shard: Shard, table: str, ids: Sequence[int]) -> np.ndarray:
    """float32 [n, dim]."""
    return read_target(shard, [ids_of(table, ids)])[0]


def read_target(shard: Shard, target: Target) -> list[np.ndarray]:
    """Each table's rows of a pull."""
    stream = shard.pull(target)
    head = stream.head()
    flat = np.concatenate([np.empty(0, np.float32), *stream])
    ends = np.cumsum([part.rows * part.dim for part in head.tables])
    return [
        part.reshape(-1, shape.dim)
        for part, shape in zip(np.split(flat, ends[:-1]) if len(ends) else [], head.tables, strict=True)
    ]


def everything(shard: Shard, table: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids sorted, whole rows with optimizer state, scores): all that a table remembers."""
    held = shard.tables[table]
    ids, scores, cursor = [], [], 0
    while True:
        page = shard.export_page(table, cursor, 1000)
        ids.append(page.ids_N)
        scores.append(page.scores_N)
        cursor = page.next_cursor
        if not cursor:
            break
    ids_N, scores_N = np.concatenate(ids), np.concatenate(scores)
    order_N = np.argsort(ids_N)
    rows_NW = shard.engine.run(lambda: whole_rows(held, ids_N[order_N]))
    return ids_N[order_N], rows_NW, scores_N[order_N]


def whole_rows(table: Table, ids_N: np.ndarray) -> np.ndarray:
    """Values and optimizer state of ids that have a float32 row in RAM, [n, width]."""
    found = table.ram.rows.copies(table.find(ids_N))
    return found[0][1].view(np.float32) if found else np.empty((0, 0), np.float32)


def new_table(shard: Shard, name: str = "t", dim: int = DIM, **settings: object) -> ps.TableConfig:
    """SGD with lr 1 on rows that start at zero: sums can be read off."""
    defaults: dict[str, object] = {"optimizer": ps.SGD(lr=1.0), "initializer": ps.Constant()}
    config = ps.TableConfig(name=name, dim=dim, **{**defaults, **settings})
    shard.create_table(config)
    return config


def at_rest(store: Store) -> bool:
    """Whether nothing is on its way up or down, and no slot waits to be freed. On the engine thread."""
    return store._writing is None and not store._demotions._condemned and not store._fetches._open


def none_held(store: Store) -> bool:
    """Whether no row in RAM is pinned, on its way down, or must stay. On the engine thread."""
    marks_S = store.ram.marks_S[: store.ram.slots_end]
    return not (marks_S & np.uint16(score.GOING | score.STAYS)).any() and bool((marks_S < score.PIN).all())
