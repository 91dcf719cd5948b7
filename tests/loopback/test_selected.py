"""Pushes of some of a step's rows, or of some of their elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.connection.connection import Connection
from ps.nn import Bags, EmbeddingBagCollection, Relaxed, Threshold, TopK
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, contents, summing

IDS = np.arange(-40, 60)
OTHER = "u"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LoopbackCluster]:
    with LoopbackCluster(2, QUIET) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: LoopbackCluster) -> Iterator[ps.Client]:
    with ps.connect(cluster.address) as client:
        yield client


def fresh(client: ps.Client, *names: str) -> None:
    for name in names:
        client.drop_table(name, missing_ok=True)
        client.create_table(summing(name))


def some_of(rng: np.random.Generator, n: int, share: float, elements: bool) -> ps.Selected:
    rows_R = np.flatnonzero(rng.random(n) < share)
    grads_RD = rng.integers(-9, 10, (len(rows_R), DIM)).astype(np.float32)
    if elements:
        grads_RD *= rng.random(grads_RD.shape) < 0.3
    return ps.Selected(rows_R, grads_RD, elements)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.booleans(), st.booleans())
def test_what_is_selected_is_applied_and_nothing_else(
    client: ps.Client, seed: int, share: float, elements: bool, prepared: bool
) -> None:
    """Beside a table that is sent whole. Rows that were not selected do not come to exist."""
    rng = np.random.default_rng(seed)
    fresh(client, "t", OTHER)
    expected: dict[int, np.ndarray] = {}
    for _ in range(3):
        ids_N = rng.choice(IDS, 60, replace=False)
        step = client.prepare({"t": ids_N, OTHER: ids_N})
        if prepared:
            step.pull()
        selected = some_of(rng, len(ids_N), share, elements)
        step.push({"t": selected, OTHER: np.ones((len(ids_N), DIM), np.float32)})
        for id_, grad_D in zip(ids_N[selected.rows_R].tolist(), selected.grads_RD, strict=True):
            expected[id_] = expected.get(id_, 0) - grad_D
    assert contents(client, "t") == {id_: row_D.tolist() for id_, row_D in expected.items()}
    assert client.size(OTHER) >= 60


def test_rows_that_were_not_selected_count_as_used(client: ps.Client) -> None:
    fresh(client, "t")
    ids_N = np.arange(8)
    client.push("t", ids_N, np.ones((8, DIM), np.float32))
    for _ in range(3):
        client.prepare({"t": ids_N}).push({"t": ps.Selected(np.array([1]), np.ones((1, DIM), np.float32))})
    scores = {id_: score for ids, _, scores in client.export("t") for id_, score in zip(ids, scores, strict=True)}
    assert scores == pytest.approx(dict.fromkeys(range(8), 4), rel=0.01)
    assert (client.pull("t", [0, 1]) == [[-1], [-4]]).all()


def test_fewer_rows_are_fewer_bytes(client: ps.Client) -> None:
    fresh(client, "t")
    ids_N = np.arange(20_000)
    sent = []
    for selected in (None, ps.Selected(np.arange(0, 20_000, 20), np.ones((1000, DIM), np.float32))):
        step = client.prepare({"t": ids_N})
        step.pull()
        before = client.stats()["client"]["sent_bytes"]["Push"]
        step.push({"t": np.ones((20_000, DIM), np.float32) if selected is None else selected})
        sent.append(client.stats()["client"]["sent_bytes"]["Push"] - before)
    assert sent[1] < 0.05 * sent[0] + 20_000 / 8 + 1000


@pytest.mark.parametrize(
    ("selected", "error", "words"),
    [
        (ps.Selected(np.array([3, 1]), np.ones((2, DIM), np.float32)), ps.InvalidArgument, "must ascend"),
        (ps.Selected(np.array([1, 5]), np.ones((2, DIM), np.float32)), ps.InvalidArgument, r"within \[0, 5\)"),
        (ps.Selected(np.array([1]), np.ones((2, DIM), np.float32)), ps.LengthMismatch, "selected for table 't'"),
        (ps.Selected(np.array([1]), np.ones((1, DIM + 1), np.float32)), ps.DimensionMismatch, "selected for table 't'"),
        (ps.Selected(np.array([2]), np.full((1, DIM), np.nan, np.float32)), ps.NonFiniteGradient, "row of id 12"),
    ],
)
def test_a_wrong_selection_is_refused_before_anything_is_sent(
    client: ps.Client, selected: ps.Selected, error: type[ps.PsError], words: str
) -> None:
    fresh(client, "t")
    step = client.prepare({"t": np.arange(10, 15)})
    with pytest.raises(error, match=words):
        step.push({"t": selected})
    assert client.size("t") == 0
    with pytest.raises(ps.InvalidArgument, match="prepare unique ids"):
        client.prepare({"t": [1, 1]}).push({"t": ps.Selected(np.array([0]), np.ones((1, DIM), np.float32))})


def test_a_selected_push_is_applied_once_whatever_the_network_does(cluster: LoopbackCluster, client: ps.Client) -> None:
    fresh(client, "t")
    faults = Faults(1, Rates(drop_request=0.1, drop_response=0.2, repeat=0.2))
    rng, expected = np.random.default_rng(3), np.zeros((len(IDS), DIM), np.float32)
    with ps.Client(Connection(cluster.address, faults.open, Hurried())) as shaky:
        for number in range(40):
            places_N = rng.choice(len(IDS), 50, replace=False)
            selected = some_of(rng, 50, 0.4, elements=number % 2 > 0)
            shaky.prepare({"t": IDS[places_N]}).push({"t": selected})
            expected[places_N[selected.rows_R]] -= selected.grads_RD
    assert (client.pull("t", IDS) == expected).all()
    assert sum(faults.seen.values()) > 20


def test_compressed_ids_are_fewer_bytes_and_the_same_step(cluster: LoopbackCluster, client: ps.Client) -> None:
    """Also negative ones, duplicates, counts, one-shot forms and explicit writes."""
    rng = np.random.default_rng(0)
    fresh(client, "t", OTHER)
    with ps.connect(cluster.address, compress_ids=True) as small, ps.connect(cluster.address) as plain:
        for one, name in ((small, "t"), (plain, OTHER)):
            rng = np.random.default_rng(0)
            for _ in range(3):
                ids_N = rng.integers(-50_000, 50_000, 30_000)
                step = one.prepare({name: ids_N})
                assert step.pull()[name].shape == (30_000, DIM)
                step.push({name: rng.integers(-3, 4, (30_000, DIM)).astype(np.float32)})
            one.push(name, [7, -7, 7], np.ones((3, DIM), np.float32))
            one.upsert(name, [1, -(2**63), 2**63 - 1], np.full((3, DIM), 5, np.float32))
            one.remove(name, [-3, 3])
            assert one.pull(name, []).shape == (0, DIM)
        sent = [one.stats()["client"]["sent_bytes"]["Prepare"] for one in (small, plain)]
    assert contents(client, "t") == contents(client, OTHER)
    assert sent[0] < 0.3 * sent[1]


def test_a_trainer_that_holds_gradients_back_loses_none(client: ps.Client) -> None:
    """Integers, so that sums are exact: rows are minus the sum of all gradients once the rest is flushed. New ids come
    to have rows with their first gradient."""
    fresh(client, "t")
    emb = EmbeddingBagCollection(client, [summing()], sparsify=TopK(density=0.1))
    rng, expected = np.random.default_rng(0), np.zeros((100, DIM))
    seen: set[int] = set()
    for _ in range(40):
        ids_N = rng.choice(100, 30, replace=False)
        weights_N = rng.integers(-4, 5, 30)
        pooled = emb({"t": Bags(torch.from_numpy(ids_N), torch.arange(30))})
        (pooled[:, 0] * torch.from_numpy(weights_N)[:, None]).sum().backward()
        emb.step()
        expected[ids_N] -= weights_N[:, None]
        seen |= set(ids_N.tolist())
        assert set(contents(client, "t")) == seen
    held = expected - client.pull("t", np.arange(100))
    assert np.abs(held).sum() > 0
    state = emb.state_dict()
    emb.flush()
    assert (client.pull("t", np.arange(100)) == expected).all()
    emb.load_state_dict(state)  # a trainer that goes on from its checkpoint has what was held then
    emb.flush()
    assert (client.pull("t", np.arange(100)) == expected + held).all()


@pytest.mark.parametrize(("share", "waits"), [(1.0, True), (1e-6, False)])
def test_rows_that_have_converged_wait_if_the_shards_call_them_important(
    client: ps.Client, share: float, waits: bool
) -> None:
    """And none of their gradients is lost: integers, so sums are exact."""
    fresh(client, "t")
    relaxed = Relaxed(every=4, ratio=0.1, share=share, window=2)
    emb = EmbeddingBagCollection(client, [summing()], sparsify=Threshold(0.0, relaxed=relaxed))
    expected = np.full((20, DIM), 10_000.0)
    client.upsert("t", np.arange(20), expected)
    rng, behind = np.random.default_rng(0), 0
    for _ in range(20):
        weights_N = rng.integers(1, 5, 20)
        pooled = emb({"t": Bags(torch.arange(20), torch.arange(20))})
        (pooled[:, 0] * torch.from_numpy(weights_N)[:, None]).sum().backward()
        emb.step()
        expected -= weights_N[:, None]
        behind += int((client.pull("t", np.arange(20)) != expected).any(axis=1).sum())
    assert (behind > 100) == waits
    assert emb._pushes.sparsifiers["t"].rows_waited == behind
    emb.flush()
    assert (client.pull("t", np.arange(20)) == expected).all()


def test_relaxing_and_precision_part_a_table_at_one_share(cluster: LoopbackCluster) -> None:
    relaxed = Threshold(0.0, relaxed=Relaxed(share=0.2))
    with (
        ps.connect(cluster.address, wire_dtype={"t": ps.ByImportance(share=0.1)}) as client,
        pytest.raises(ps.InvalidArgument, match="ask for the same share"),
    ):
        EmbeddingBagCollection(client, [summing()], sparsify=relaxed)


def test_sparsify_is_for_tables_that_there_are(client: ps.Client) -> None:
    with pytest.raises(ps.InvalidArgument, match=r"sparsify names tables \['x'\]"):
        EmbeddingBagCollection(client, [summing()], sparsify={"x": TopK()})
    emb = EmbeddingBagCollection(client, [summing()], sparsify={"t": Threshold(1.0)})
    with pytest.raises(ps.InvalidArgument, match=r"the state holds back gradients of tables \[\], `sparsify` is for"):
        emb.set_extra_state({})
