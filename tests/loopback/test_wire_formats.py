"""Precision by importance between a client and real shards, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ps
from ps.client.connection.connection import Connection
from ps.nn import Bags, EmbeddingBagCollection, TopK
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.loopback.tables import summing

DIM, N = 16, 400
IDS = np.arange(-100, 300)
USED = np.arange(0, 40)
"""A tenth of them, pushed more often than the others."""
BY = ps.ByImportance(share=0.1, others="int8")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LoopbackCluster]:
    with LoopbackCluster(2, QUIET) as cluster:
        yield cluster


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, DIM)).astype(np.float32)


def fill(client: ps.Client, *configs: ps.TableConfig) -> None:
    """Rows `values()`, those of USED the most important of every shard."""
    for config in configs:
        client.drop_table(config.name, missing_ok=True)
        client.create_table(config)
        client.upsert(config.name, IDS, values())
        for _ in range(30):
            client.push(config.name, USED, np.zeros((len(USED), config.dim), np.float32))


def table(name: str = "t", **fields: object) -> ps.TableConfig:
    return summing(name, DIM).model_copy(update={"half_life_pushes": 64, **fields})


def off_by(rows: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """By row, of its largest magnitude."""
    return np.abs(rows - exact).max(axis=1) / np.abs(exact).max(axis=1)


def test_important_rows_are_exact_and_the_others_within_the_bound(cluster: LoopbackCluster) -> None:
    """Both ways, of several tables with formats of their own, by step and with duplicates."""
    forms = {"t": BY, "u": "int8", "v": ps.ByImportance(share=0.1, important="fp16", others="int8")}
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=forms) as client:
        fill(exact, *(table(name) for name in "tuvw"))
        important = np.isin(IDS, USED)
        step = client.prepare({name: np.concatenate([IDS, IDS[:3]]) for name in "tuvw"})
        found = step.pull_rows()
        assert {name: found[name].important is not None for name in "tuvw"} == {
            "t": True,
            "u": False,
            "v": True,
            "w": False,
        }
        # a share is of each shard's rows, as nearly as rows alike allow
        flags = np.asarray(found["t"].important)[:N]
        assert not flags[~important].any()
        assert flags[important].all()
        off = {name: off_by(np.asarray(found[name].rows)[:N], values()) for name in "tuvw"}
        assert not off["t"][flags].any()
        assert off["t"][~flags].all()
        assert off["t"].max() <= 0.5 / 127 * 1.001
        assert off["u"].all()
        assert off["u"].max() <= 0.5 / 127 * 1.001
        assert off["v"][flags].max() <= 2.0**-11
        assert not off["w"].any()
        np.testing.assert_array_equal(found["t"].rows[N:], found["t"].rows[:3])
        assert np.asarray(found["t"].exists).all()

        grads = {name: np.concatenate([values(1), np.zeros((3, DIM), np.float32)]) for name in "tuvw"}
        step.push(grads)
        after = {name: values() - exact.pull(name, IDS) for name in "tuvw"}
        slack = 1e-6  # the shard subtracts in float32
        assert off_by(after["t"], values(1))[flags].max() <= slack
        assert slack < off_by(after["t"], values(1))[~flags].max() <= 0.5 / 127 * 1.001 + slack
        assert slack < off_by(after["u"], values(1)).max() <= 0.5 / 127 * 1.001 + slack
        assert slack < off_by(after["v"], values(1))[flags].max() <= 2.0**-11 + slack
        assert off_by(after["w"], values(1)).max() <= slack


def test_flags_may_be_asked_for_where_nothing_is_rounded(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client, ps.connect(cluster.address, wire_dtype=BY) as by:
        fill(client, table())
        found = client.prepare({"t": [[5, 290], [1000, 5]]}).pull_rows({"t": 0.2})["t"]
        assert np.asarray(found.important).tolist() == [[True, False], [False, True]]
        assert np.asarray(found.exists).tolist() == [[True, True], [False, True]]
        np.testing.assert_array_equal(found.rows, client.pull("t", [[5, 290], [1000, 5]]))
        everything = client.prepare({"t": IDS}).pull_rows({"t": 1.0})["t"]
        assert np.asarray(everything.important).all()
        assert not np.asarray(client.prepare({"t": IDS}).pull_rows({"t": 0.0})["t"].important).any()
        with pytest.raises(ps.InvalidArgument, match=r"0\.2 of the rows are asked for"):
            by.prepare({"t": IDS}).pull_rows({"t": 0.2})
        with pytest.raises(ps.InvalidArgument, match=r"\['u'\]"):
            client.prepare({"t": IDS}).pull_rows({"u": 0.2})
        with pytest.raises(ps.InvalidArgument, match="not a share"):
            client.prepare({"t": IDS}).pull_rows({"t": 2})


def test_one_shot_pulls_are_rounded_and_one_shot_pushes_are_as_important(cluster: LoopbackCluster) -> None:
    """Nobody has said which rows of a push matter less: nothing is rounded."""
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=BY) as client:
        fill(exact, table())
        off = off_by(client.pull("t", IDS), values())
        assert not off[np.isin(IDS, USED)].all()
        assert off[~np.isin(IDS, USED)].all()
        client.push("t", IDS, values(1))
        np.testing.assert_array_equal(exact.pull("t", IDS), values() - values(1))


def test_small_elements_are_zero_both_ways(cluster: LoopbackCluster) -> None:
    form = ps.ByImportance(share=0, others="fp32", mask_below=0.5)
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=form) as client:
        fill(exact, table())
        step = client.prepare({"t": IDS})
        np.testing.assert_array_equal(step.pull()["t"], np.where(np.abs(values()) < 0.5, 0, values()))
        step.push({"t": values(1)})
        kept = np.where(np.abs(values(1)) < 0.5, 0, values(1))
        np.testing.assert_array_equal(exact.pull("t", IDS), values() - kept)
        step = client.prepare({"t": IDS})
        step.push({"t": ps.Selected(np.array([3]), np.full((1, DIM), 0.25, np.float32))})
        expected = values() - kept
        expected[3] -= np.float32(0.25)
        np.testing.assert_array_equal(exact.pull("t", IDS), expected, "what was selected is not masked")


def test_a_mask_saves_bytes(cluster: LoopbackCluster) -> None:
    received = {}
    for name, mask in (("plain", 0.0), ("masked", 2.0)):
        form = ps.ByImportance(share=0, others="fp32", mask_below=mask)
        with ps.connect(cluster.address, wire_dtype=form) as client:
            fill(client, table())
            before = client.stats()["client"]["received_bytes"].get("Pull", 0)
            client.pull("t", IDS)
            received[name] = client.stats()["client"]["received_bytes"]["Pull"] - before
    assert received["masked"] < received["plain"] / 4, "5 % of normal numbers are beyond 2, and a bit says which"


@pytest.mark.parametrize("prepared", [True, False])
def test_rows_on_disk_have_their_importance_there(tmp_path: Path, prepared: bool) -> None:
    """Whether they are brought up for a step or read beside."""
    with (
        LoopbackCluster(2, ps.ServiceConfig(disk={"path": tmp_path}, watching={"metrics": False})) as cluster,
        ps.connect(cluster.address) as exact,
        ps.connect(cluster.address, wire_dtype=BY) as client,
    ):
        fill(exact, table(swap_fraction=0.97))
        in_ram = sum(shard["tables"]["t"]["rows"]["hot"] for shard in exact.stats()["shards"])
        assert in_ram < len(USED), "important rows are on disk too"
        step = client.prepare({"t": IDS})
        if prepared:
            found = step.pull_rows()["t"]
            flags, rows = np.asarray(found.important), found.rows
        else:
            flags, rows = off_by(client.pull("t", IDS), values()) == 0, client.pull("t", IDS)
        assert not flags[~np.isin(IDS, USED)].any()
        assert flags[np.isin(IDS, USED)].all()
        np.testing.assert_array_equal(off_by(rows, values()) == 0, flags)


@pytest.mark.parametrize(
    ("cold", "share"), [(ps.Fp16(hot_fraction=0.1), 0.1), (ps.TensorTrain(rows=N, ranks=4, hot_rows=40), 1.0)]
)
def test_tables_with_cold_rows_travel_as_any_others(cluster: LoopbackCluster, cold: object, share: float) -> None:
    """Cold rows are what they read as, to which the wire adds its rounding. Of a tensor-train table's ids only those
    with a row of their own may be important."""
    ids, form = np.arange(N), ps.ByImportance(share=share)
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=form) as client:
        exact.drop_table("cold", missing_ok=True)
        exact.create_table(
            ps.TableConfig(name="cold", dim=DIM, cold=cold, optimizer=ps.SGD(lr=0.1), half_life_pushes=64)
        )
        for number in range(70):
            exact.push("cold", USED, values(number)[: len(USED)])
        exact.push("cold", ids, values())
        step = client.prepare({"cold": ids})
        found = step.pull_rows()["cold"]
        whole, rows, flags = exact.pull("cold", ids), np.asarray(found.rows), np.asarray(found.important)
        assert flags[:40].all()
        assert not flags[40:].any()
        np.testing.assert_array_equal(rows[flags], whole[flags])
        assert 0 < off_by(rows, whole)[~flags].max() <= 0.5 / 127 * 1.001
        before = exact.pull("cold", ids)
        step.push({"cold": np.ones((N, DIM), np.float32)})
        assert (exact.pull("cold", ids) != before).any(axis=1).all()


def test_repeated_pushes_are_applied_once(cluster: LoopbackCluster) -> None:
    """Requests and answers are lost, and come twice."""
    faults = Faults(1, Rates(drop_request=0.1, drop_response=0.2, repeat=0.2))
    worker = ps.Client(Connection(cluster.address, faults.open, Hurried()), wire_dtype=BY)
    with ps.connect(cluster.address) as exact, worker:
        fill(exact, table())
        start, sent = exact.pull("t", IDS), np.zeros((N, DIM), np.float32)
        for number in range(20):
            step = worker.prepare({"t": IDS})
            if number % 3:
                assert np.asarray(step.pull_rows()["t"].important).any()
            grads = np.zeros((N, DIM), np.float32)
            grads[:, number % DIM] = 127 * 2.0 ** (number % 5 - 9)  # int8 holds these exactly
            step.push({"t": grads})
            sent += grads
        np.testing.assert_allclose(exact.pull("t", IDS), start - sent, atol=1e-5)
        assert sum(shard["repeated_pushes"] for shard in exact.stats()["shards"]) > 0


def test_a_push_repeated_after_another_pull_is_the_same_push(cluster: LoopbackCluster) -> None:
    """What was important when it was first sent decides how it is sent again."""
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=BY) as client:
        fill(exact, table())
        step = client.prepare({"t": IDS})
        step.pull()
        step.push({"t": values(1)})
        after = exact.pull("t", IDS)
        for _ in range(60):  # other rows are important now
            exact.push("t", USED + 60, np.zeros((len(USED), DIM), np.float32))
        repeats = sum(shard["repeated_pushes"] for shard in exact.stats()["shards"])
        step.pull()
        step.push({"t": values(1)})
        assert sum(shard["repeated_pushes"] for shard in exact.stats()["shards"]) == repeats + 2
        np.testing.assert_array_equal(exact.pull("t", IDS), after)


@pytest.mark.parametrize(("value", "precision"), [(7e4, "fp16"), (2.0**127, "int8"), (np.nan, "int8")])
def test_what_a_rows_precision_cannot_hold_is_refused_before_anything_is_sent(
    cluster: LoopbackCluster, value: float, precision: str
) -> None:
    form = ps.ByImportance(share=0.1, important="fp32", others=precision)
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=form) as client:
        fill(exact, table())
        step = client.prepare({"t": IDS})
        flags = np.asarray(step.pull_rows()["t"].important)
        grads = np.ones((N, DIM), np.float32)
        grads[np.flatnonzero(~flags)[5], 3] = value
        with pytest.raises(ps.NonFiniteGradient, match=f"row of id {IDS[~flags][5]}; nothing was sent"):
            step.push({"t": grads})
        np.testing.assert_array_equal(exact.pull("t", IDS), values())
        if np.isfinite(value):
            grads = np.ones((N, DIM), np.float32)
            grads[np.flatnonzero(flags)[0], 3] = value
            step.push({"t": grads})
            assert exact.pull("t", IDS[flags][:1])[0, 3] == values()[flags][0, 3] - np.float32(value)


@pytest.mark.parametrize("sparsify", [None, TopK(density=0.5)])
def test_a_collection_loses_nothing_to_the_mask(cluster: LoopbackCluster, sparsify: TopK | None) -> None:
    """What it masks is held back and sent with the next."""
    form = ps.ByImportance(share=0, others="fp32", mask_below=100.0)
    with ps.connect(cluster.address) as exact, ps.connect(cluster.address, wire_dtype=form) as client:
        exact.drop_table("t", missing_ok=True)
        exact.create_table(table())
        exact.upsert("t", IDS, np.zeros((N, DIM), np.float32))
        embeddings = EmbeddingBagCollection(client, [table()], sparsify=sparsify)
        ids = torch.from_numpy(IDS)
        for _ in range(3):
            embeddings({"t": Bags(ids, torch.arange(N))}).sum().backward()
        embeddings.step()
        if sparsify is None:
            assert not exact.pull("t", IDS).any(), "all gradients are 1, and below the mask"
        embeddings.flush()
        np.testing.assert_array_equal(exact.pull("t", IDS), np.full((N, DIM), -3, np.float32))
