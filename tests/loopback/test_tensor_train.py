"""A tensor-train table through a real server process: everything that a table can do, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.engine.budget import watched
from benchmarks.harness.service import one_shard

DIM = 16
ROWS = 100_000


def table(name: str = "t", rows: int = ROWS, dim: int = DIM, **cold: object) -> ps.TableConfig:
    settings = {"ranks": 8, "hot_rows": 500, **cold}
    return ps.TableConfig(
        name=name,
        dim=dim,
        optimizer=ps.RowwiseAdagrad(lr=0.05),
        half_life_pushes=128,
        cold=ps.TensorTrain(rows=rows, **settings),
    )


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ps.Client]:
    with one_shard(ps.ServiceConfig(disk={"path": tmp_path}, watching={"metrics": False})) as (client, _):
        yield client


def skewed(rng: np.random.Generator, n: int = 3000, rows: int = ROWS) -> np.ndarray:
    """Unique ids: some very often, most hardly ever."""
    return np.unique((np.minimum(rng.zipf(1.1, n), rows) * 2_654_435_761) % rows)


def train(client: ps.Client, pushes: int) -> dict[str, object]:
    """Towards rows that cores can have: products of two vectors, of a value for each id."""
    rng = np.random.default_rng(0)
    first_ND, second_ND = rng.standard_normal((2, 400, DIM)).astype(np.float32) * 0.3
    losses = []
    for _ in range(pushes):
        ids_N = skewed(rng)
        step = client.prepare({"t": ids_N})
        error_ND = step.pull()["t"] - first_ND[ids_N // 400] * second_ND[ids_N % 400]
        step.push({"t": error_ND})
        losses.append(float((error_ND**2).mean()))
    stats: dict[str, object] = client.stats()["shards"][0]["tables"]["t"]
    return {**stats, "losses": losses}


def test_a_tensor_train_table_does_what_tables_do(client: ps.Client) -> None:
    client.create_table(table(fold_tolerance=0.3))
    client.create_table(table(fold_tolerance=0.3), exist_ok=True)
    with pytest.raises(ps.errors.TableExists):
        client.create_table(table(fold_tolerance=0.2), exist_ok=True)
    found = train(client, 200)
    losses = found["losses"]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])  # type: ignore[index]
    assert found["rows_in_cores"] > found["rows_updated"] > 0  # type: ignore[operator]
    assert found["tensor_train"]["compression"] > 100  # type: ignore[index]
    rows_ND, exists_N = client.pull("t", np.arange(ROWS), return_exists=True)
    assert int(exists_N.sum()) == client.size("t") == found["rows_created"] - found["rows_folded"]  # type: ignore[operator]
    pages = list(client.export("t"))
    exported = {int(id_): row_D for ids_N, rows, _ in pages for id_, row_D in zip(ids_N, rows, strict=True)}
    assert exported.keys() == set(np.flatnonzero(exists_N).tolist())
    assert all(row_D.tobytes() == rows_ND[id_].tobytes() for id_, row_D in exported.items())
    one = min(exported)
    client.upsert("t", [one, ROWS - 1], np.full((2, DIM), 7, np.float32))
    assert (client.pull("t", [one, ROWS - 1]) == 7).all()
    client.remove("t", [one])
    assert not np.isin(client.pull("t", [one]), [0, 7]).any(), "without a row of its own it reads as the cores say"
    size = client.size("t")
    client.evict("t", fraction=0.5)
    assert client.size("t") < 0.6 * size
    with pytest.raises(ps.errors.InvalidArgument, match="ids 0 to 99,999; got 100000"):
        client.pull("t", [0, ROWS])
    client.drop_table("t")
    assert "t" not in client.memory_usage()["tables"]


def test_the_cores_are_trained_the_same_by_one_shard_and_by_its_copy(tmp_path: Path) -> None:
    """Rows lifted, folded and kept, some of them on disk; on the other shard there is none."""
    pulled = []
    for config in (
        ps.ServiceConfig(disk={"path": tmp_path}, watching={"metrics": False}),
        ps.ServiceConfig(watching={"metrics": False}),
    ):
        with one_shard(config) as (client, _):
            client.create_table(table(hot_rows=200, fold_tolerance=0.2))
            found = train(client, 100)
            assert found["rows_kept"]
            pulled.append(client.pull("t", np.arange(ROWS)))
    assert pulled[0].tobytes() == pulled[1].tobytes()


def test_100_million_rows_take_less_than_200_mb() -> None:
    """Above what the process takes with nothing in it; without cores they would be 26 GB."""
    with one_shard(ps.ServiceConfig(memory={"ram_bytes": 200 << 20}, watching={"metrics": False})) as (client, server):
        with watched(server.pid) as memory:
            rows, rng = 100_000_000, np.random.default_rng(0)
            client.create_table(table(rows=rows, dim=64, ranks=32, hot_rows=5000))
            for _ in range(20):
                ids_N = skewed(rng, 10_000, rows)
                step = client.prepare({"t": ids_N})
                step.push({"t": step.pull()["t"]})
            assert memory.peak < 200 << 20
            assert memory.now() <= client.memory_usage()["total"] * 1.05
        cores = client.stats()["shards"][0]["tables"]["t"]["tensor_train"]
        assert cores["rows"] == rows
        assert cores["compression"] > 3000
