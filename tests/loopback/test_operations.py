"""Every operation of the client, in process and over gRPC, with one shard and with three."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import ps
from ps.server.shard_server import ShardServer
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block, contents, scores, summing, weighing

BIG_IDS = [-(2**63), -(2**32) - 5, -1, 0, 5, 2**31, 2**32 + 5, 2**53 + 1, 2**63 - 1]


@pytest.fixture(autouse=True)
def table(client: ps.Client) -> None:
    client.create_table(summing())


def test_a_push_is_what_the_next_pull_reads(client: ps.Client) -> None:
    ids = np.arange(-500, 500)
    assert not client.pull("t", ids).any()
    client.push("t", ids, block(ids))
    np.testing.assert_array_equal(client.pull("t", ids[::-1]), -block(ids[::-1]))
    assert client.size("t") == len(ids)


def test_duplicates_are_summed_and_read_the_same(client: ps.Client) -> None:
    client.push("t", [7, 8, 7, 7], block([1, 2, 4, 8]))
    np.testing.assert_array_equal(client.pull("t", [8, 7, 8, 7]), -block([2, 13, 2, 13]))


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3), (0, 3), (3, 0), (2, 1, 2)])
def test_ids_of_any_shape_give_rows_of_that_shape(client: ps.Client, shape: tuple[int, ...]) -> None:
    ids = np.arange(np.prod(shape)).reshape(shape)
    client.push("t", ids, block(ids + 1))
    rows, exists = client.pull("t", ids, return_exists=True)
    assert rows.shape == (*shape, DIM)
    np.testing.assert_array_equal(rows, -block(ids + 1))
    assert exists.shape == shape
    assert exists.all()


def test_one_id_without_a_dimension_gives_one_row_without(client: ps.Client) -> None:
    client.push("t", 5, np.full(DIM, 2.0))
    assert client.pull("t", 5).tolist() == [-2.0] * DIM
    assert client.pull("t", torch.tensor(5)).shape == (DIM,)


def test_torch_in_torch_out(client: ps.Client) -> None:
    ids = torch.tensor([[3, 1], [3, 2]])
    client.push("t", ids, torch.ones(2, 2, DIM, dtype=torch.bfloat16))
    rows, exists = client.pull("t", ids, return_exists=True)
    assert (rows.dtype, rows.shape, exists.dtype) == (torch.float32, (2, 2, DIM), torch.bool)
    assert rows[..., 0].tolist() == [[-2, -1], [-2, -1]]
    rows += 1  # the caller's own memory
    step = client.prepare({"t": ids})
    assert torch.equal(step.pull()["t"], rows - 1)


def test_big_and_negative_ids_are_ids_of_their_own(client: ps.Client) -> None:
    """None is cut to 32 bits, rounded to a double or taken as unsigned on its way."""
    values = np.arange(1, len(BIG_IDS) + 1)
    client.push("t", BIG_IDS, block(values))
    assert contents(client, "t") == {id_: [-value] * DIM for id_, value in zip(BIG_IDS, values.tolist(), strict=True)}
    np.testing.assert_array_equal(client.pull("t", BIG_IDS), -block(values))
    strangers = [5 - 2**32, 2**31 - 2**32, 2**32 - 1, 2**53]
    assert not client.pull("t", strangers, return_exists=True)[1].any()
    assert client.remove("t", BIG_IDS).all()
    assert client.size("t") == 0


def test_a_pull_creates_nothing_and_says_what_exists(client: ps.Client) -> None:
    client.push("t", [2, 4], block([1, 1]))
    rows, exists = client.pull("t", [1, 2, 3, 4], return_exists=True)
    assert exists.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(rows, -block([0, 1, 0, 1]))
    assert client.size("t") == 2
    assert set(contents(client, "t")) == {2, 4}


def test_an_unseen_id_reads_as_its_initial_value_on_every_shard_the_same(client: ps.Client) -> None:
    config = ps.TableConfig(name="u", dim=DIM, initializer=ps.Normal(), seed=3)
    client.create_table(config)
    ids = np.arange(1000)
    rows = client.pull("u", ids)
    with ps.connect("inproc:") as alone:
        alone.create_table(config)
        np.testing.assert_array_equal(alone.pull("u", ids), rows)
    client.push("u", ids[:500], np.zeros((500, DIM), np.float32))
    np.testing.assert_array_equal(client.pull("u", ids), rows)


def test_upsert_sets_and_creates_assign_sets_only(client: ps.Client) -> None:
    client.push("t", [1, 2], block([1, 1]))
    assert client.assign("t", [2, 3], block([20, 30])).tolist() == [True, False]
    assert client.upsert("t", [[3, 1]], block([[33, 11]])).tolist() == [[False, True]]
    assert {id_: row[0] for id_, row in contents(client, "t").items()} == {1: 11, 2: 20, 3: 33}


def test_upsert_leaves_the_optimizers_state(client: ps.Client) -> None:
    client.create_table(
        ps.TableConfig(name="u", dim=DIM, optimizer=ps.Adagrad(lr=1.0, eps=1e-6), initializer=ps.Constant())
    )
    client.push("u", [1], block([3]))
    client.upsert("u", [1], block([0]))
    client.push("u", [1], block([4]))
    np.testing.assert_allclose(client.pull("u", [1]), block([-4 / 5]), rtol=1e-5)


def test_a_removed_row_reads_as_initial_value_again(client: ps.Client) -> None:
    client.push("t", range(10), block(range(10)))
    assert client.remove("t", [[3, 99], [3, 4]]).tolist() == [[True, False], [True, True]]
    assert set(contents(client, "t")) == set(range(10)) - {3, 4}
    np.testing.assert_array_equal(client.pull("t", [3, 4, 5]), -block([0, 0, 5]))


def test_export_gives_every_row_once_with_its_frequency(client: ps.Client) -> None:
    ids = np.arange(1000)
    client.push("t", ids, block(ids))
    client.push("t", np.repeat(ids[:10], 3), block(np.zeros(30)))
    pages = list(client.export("t", page_rows=64))
    assert len(pages) > 10
    ids_N, rows_ND, scores_N = (np.concatenate(parts) for parts in zip(*pages, strict=True))
    order_N = np.argsort(ids_N)
    np.testing.assert_array_equal(ids_N[order_N], ids)
    np.testing.assert_array_equal(rows_ND[order_N], -block(ids))
    assert scores_N[order_N].tolist() == [2.0] * 10 + [1.0] * 990, "pushes that had the id"
    client.create_table(summing("empty"))
    assert list(client.export("empty")) == []


def test_counts_given_with_unique_ids_are_the_occurrences(client: ps.Client) -> None:
    client.create_table(weighing(frequency=0.5, occurrences=1))
    step = client.prepare({"w": [5, 6]}, counts={"w": [100, 1]})
    step.pull()
    step.push({"w": block([1, 1])})
    assert scores(client, "w") == {5: 100.5, 6: 1.5}


def test_rows_of_many_chunks_arrive_whole_and_in_order(client: ps.Client) -> None:
    """13 MB each way, more than gRPC's own limit of 4 MB, in chunks that end inside no row."""
    client.create_table(summing("wide", dim=65))
    ids = np.random.default_rng(0).permutation(50_000) - 25_000
    client.push("wide", ids, block(ids, 65))
    np.testing.assert_array_equal(client.pull("wide", ids), -block(ids, 65))
    client.upsert("wide", ids, block(ids + 1, 65))
    np.testing.assert_array_equal(client.pull("wide", ids), block(ids + 1, 65))


def test_stats_and_memory_usage_add_up(client: ps.Client) -> None:
    client.push("t", range(100), block(range(100)))
    client.pull("t", range(50))
    stats = client.stats()
    shards = len(client.shards())
    assert [shard["shard_id"] for shard in stats["shards"]] == list(range(shards))
    tables = [shard["tables"]["t"] for shard in stats["shards"]]
    assert sum(table["rows"]["hot"] for table in tables) == sum(table["rows_created"] for table in tables) == 100
    assert sum(table["rows_updated"] for table in tables) == 100
    assert sum(table["rows_read"] for table in tables) == 50
    usage = client.memory_usage()
    parts = [*usage["tables"]["t"]["hot"].values(), *usage["outside_tables"].values()]
    assert usage["total"] == sum(parts)
    assert usage["tables"]["t"]["hot"]["rows"] >= 100 * DIM * 4


def test_tables_come_and_go(client: ps.Client) -> None:
    assert set(client.tables()) == {"t"}
    created = client.create_table(ps.TableConfig(name="u", dim=2))
    assert created == client.tables()["u"]
    client.push("u", range(10), np.ones((10, 2)))
    assert client.drop_table("u") is True
    with pytest.raises(ps.TableNotFound, match="there are: t"):
        client.pull("u", [1])
    with pytest.raises(ps.TableNotFound):
        client.drop_table("u")
    assert client.drop_table("u", missing_ok=True) is False
    client.create_table(ps.TableConfig(name="u", dim=3))
    assert client.size("u") == 0


def test_the_names_of_other_libraries_are_the_same_calls() -> None:
    assert ps.Client.lookup is ps.Client.pull
    assert ps.Client.apply_gradients is ps.Client.push
    assert ps.Client.prefetch is ps.Client.prepare


def test_every_blocking_call_takes_a_timeout() -> None:
    blocking = ["create_table", "drop_table", "pull", "push", "upsert", "assign", "remove", "export", "size"]
    for call in [getattr(ps.Client, name) for name in (*blocking, "memory_usage", "stats", "tables")]:
        assert inspect.signature(call).parameters["timeout_s"].default is None, call.__name__
    for call in (ps.Step.pull, ps.Step.push):
        assert "timeout_s" in inspect.signature(call).parameters


# half precision on the wire


@pytest.mark.parametrize("shards", [1, 3])
def test_fp16_on_the_wire_rounds_and_halves_the_bytes(shards: int) -> None:
    ids = np.arange(5000)
    grads = np.random.default_rng(1).standard_normal((5000, 32), np.float32)
    with LoopbackCluster(shards, QUIET) as cluster:
        traffic = {}
        for wire in ("fp32", "fp16"):
            with ps.connect(cluster.address, wire_dtype=wire) as client:
                client.create_table(summing(wire, dim=32))
                client.push(wire, ids, grads)
                rows = client.pull(wire, ids)
                traffic[wire] = client.stats()["client"]
                rounded = grads if wire == "fp32" else grads.astype(np.float16).astype(np.float32)
                np.testing.assert_array_equal(rows, -rounded)
        for way, method in (("received_bytes", "Pull"), ("sent_bytes", "Push")):
            saved = traffic["fp32"][way][method] - traffic["fp16"][way][method]
            assert saved == pytest.approx(5000 * 32 * 2, rel=0.01)


def test_a_gradient_that_overflows_fp16_is_refused_by_name(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address, wire_dtype="fp16") as client:
        client.create_table(summing())
        with pytest.raises(ps.NonFiniteGradient, match=r"1000000.*id 1; nothing was sent .fp16 cannot hold it"):
            client.push("t", [1], block([1e6]))
        assert client.size("t") == 0


def test_a_page_of_wide_rows_is_bound_by_bytes(client: ps.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create_table(summing("wide", dim=65_536))
    client.upsert("wide", range(100), block(range(100), 65_536))
    pages = [ids_N.tolist() for ids_N, _, _ in client.export("wide", page_rows=100_000)]
    assert max(len(page) for page in pages) <= 64, "16 MiB"
    assert sorted(id_ for page in pages for id_ in page) == list(range(100))
    monkeypatch.setattr("ps.server.handlers.reads.EXPORT_PAGE_BYTES", 10)
    assert {len(ids_N) for ids_N, _, _ in client.export("wide")} == {1}, "one at least"


def test_an_unknown_wire_dtype_is_refused_before_anything_is_sent(shard_server: ShardServer) -> None:
    with pytest.raises(ps.DtypeMismatch, match="'fp8'"):
        ps.connect(shard_server.address, wire_dtype="fp8")
