"""Tables whose rows can be read off: SGD with lr 1 on rows that start at zero, so a row is minus the sum of its
gradients."""

from __future__ import annotations

import numpy as np

import ps

DIM = 4


def summing(name: str = "t", dim: int = DIM) -> ps.TableConfig:
    return ps.TableConfig(name=name, dim=dim, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())


def weighing(**weights: float) -> ps.TableConfig:
    """Table "w", whose importance is of these signals."""
    return summing("w").model_copy(update={"importance": ps.Importance(**weights)})


def block(values: object, dim: int = DIM) -> np.ndarray:
    """Each value as a row, float32 [*values.shape, dim]."""
    return np.repeat(np.asarray(values, np.float32)[..., None], dim, axis=-1)


def contents(client: ps.Client, table: str) -> dict[int, list[float]]:
    """Every row by id; fails if an id is exported twice."""
    found: dict[int, list[float]] = {}
    for ids_N, rows_ND, _ in client.export(table):
        for id_, row in zip(ids_N.tolist(), rows_ND.tolist(), strict=True):
            assert id_ not in found
            found[id_] = row
    return found


def scores(client: ps.Client, table: str) -> dict[int, float]:
    """Every row's importance by id."""
    pages = [(ids_N.tolist(), scores_N.tolist()) for ids_N, _, scores_N in client.export(table)]
    return {id_: score for ids, page in pages for id_, score in zip(ids, page, strict=True)}
