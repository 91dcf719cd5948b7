"""`client.evict`: the least important rows go, and are handed back as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Transport, open_transport
from ps.client.writes.evict import Evicted
from ps.wire import methods
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import block, contents, scores, summing

USED_TWICE, USED_ONCE = np.arange(300), np.arange(300, 1000)


class BeforeRemoval:
    """A network on which `act` happens, once, before anybody's removal is sent."""

    def __init__(self) -> None:
        self.act: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def open(self, address: str) -> Transport:
        """For `Connection(address, open_transport=network.open)`."""
        inner = open_transport(address)
        passed = inner.unary

        def unary(method: methods.Method, data: bytes, timeout_s: float) -> bytes:
            if method is methods.REMOVE:
                with self._lock:
                    act, self.act = self.act, None
                    if act is not None:
                        act()
            return passed(method, data, timeout_s)

        inner.unary = unary  # type: ignore[method-assign]
        return inner


@pytest.fixture
def network() -> BeforeRemoval:
    return BeforeRemoval()


@pytest.fixture(params=[False, True], ids=["ram", "disk"])
def client(request: pytest.FixtureRequest, tmp_path: Path, network: BeforeRemoval) -> Iterator[ps.Client]:
    config = QUIET.having(disk={"path": tmp_path if request.param else None})
    with (
        LoopbackCluster(3, config) as cluster,
        ps.Client(Connection(cluster.address, network.open)) as connected,
    ):
        connected.create_table(summing().model_copy(update={"swap_fraction": 0.8, "half_life_pushes": 10_000}))
        connected.push("t", USED_TWICE, block(USED_TWICE))
        connected.push("t", np.arange(1000), block(np.arange(1000)))
        yield connected


def test_the_least_important_go_and_are_handed_back(client: ps.Client) -> None:
    before = contents(client, "t")
    evicted = client.evict("t", fraction=0.5, return_rows=True)
    assert len(evicted) == 500 == len(set(evicted.ids.tolist()))
    assert evicted.ids.min() >= 300
    assert evicted.scores.tolist() == [1.0] * 500
    assert evicted.rows is not None
    np.testing.assert_array_equal(evicted.rows, -block(evicted.ids))
    after = contents(client, "t")
    assert set(before) - set(after) == set(evicted.ids.tolist())
    assert not client.pull("t", evicted.ids).any()
    assert client.size("t") == 500
    evicted = client.evict("t", rows=250)
    assert evicted.rows is None
    assert np.isin(USED_ONCE, [*before.keys() - after.keys(), *evicted.ids]).sum() >= 700


@pytest.mark.parametrize(
    ("how", "gone"), [({"fraction": 0}, 0), ({"rows": 0}, 0), ({"fraction": 1}, 1000), ({"rows": 10**9}, 1000)]
)
def test_none_and_all(client: ps.Client, how: dict[str, float], gone: int) -> None:
    assert len(client.evict("t", return_rows=True, **how)) == gone  # type: ignore[arg-type]
    assert client.size("t") == 1000 - gone


def test_a_row_pushed_after_it_was_chosen_stays(client: ps.Client, network: BeforeRemoval) -> None:
    network.act = lambda: client.push("t", [400], block([1]))
    evicted = client.evict("t", fraction=1.0)
    assert len(evicted) == 999
    np.testing.assert_array_equal(client.pull("t", [400]), -block([401]))


@pytest.mark.parametrize("how", [{}, {"fraction": 0.1, "rows": 5}, {"fraction": 1.5}, {"fraction": -0.1}, {"rows": -1}])
def test_it_must_be_clear_how_much_is_to_go(client: ps.Client, how: dict[str, float]) -> None:
    with pytest.raises(ps.InvalidArgument, match=r"fraction|rows"):
        client.evict("t", **how)  # type: ignore[arg-type]
    with pytest.raises(ps.TableNotFound):
        client.evict("none", fraction=0.1)


def write_before_removal(
    client: ps.Client, network: BeforeRemoval, write: Callable[[ps.Client, np.ndarray], object]
) -> Evicted:
    """Evicts everything; of the rows chosen, [395, 405) are written before they are removed."""
    network.act = lambda: write(client, np.arange(395, 405))
    return client.evict("t", fraction=1.0, return_rows=True)


EXPLICIT = {
    "upsert": lambda client, ids: client.upsert("t", ids, block(ids * 10)),
    "assign": lambda client, ids: client.assign("t", ids, block(ids * 10)),
    "twice": lambda client, ids: [client.assign("t", ids, block(ids * by)) for by in (3, 10)],
}


@pytest.mark.parametrize("write", EXPLICIT.values(), ids=EXPLICIT.keys())
def test_a_row_set_after_it_was_chosen_stays(
    client: ps.Client, network: BeforeRemoval, write: Callable[[ps.Client, np.ndarray], object]
) -> None:
    before, kept_N = scores(client, "t"), np.arange(395, 405)
    evicted = write_before_removal(client, network, write)
    assert len(evicted) == 990
    assert not np.isin(evicted.ids, kept_N).any()
    np.testing.assert_array_equal(client.pull("t", kept_N), block(kept_N * 10))
    after = scores(client, "t")
    last_bit = 2.0**-18
    assert after == pytest.approx({id_: before[id_] for id_ in kept_N.tolist()}, rel=last_bit), (
        "a value says nothing of importance"
    )


def test_so_does_one_of_half_precision_and_one_whose_use_adds_nothing(
    client: ps.Client, network: BeforeRemoval
) -> None:
    client.drop_table("t")
    cold, by_recency = ps.Fp16(hot_fraction=0.1), ps.Importance(frequency=0, recency=1)
    client.create_table(
        summing().model_copy(
            update={"cold": cold, "importance": by_recency, "half_life_pushes": 64, "swap_fraction": 0.5}
        )
    )
    for _ in range(3):
        client.push("t", np.arange(0, 300), block(np.arange(0, 300)))
    client.upsert("t", np.arange(1000), block(np.arange(1000)))
    client.assign("t", [404], block([2]))
    evicted = write_before_removal(client, network, lambda client, ids: client.push("t", ids, block(ids)))
    assert len(evicted) == 990
    assert client.pull("t", np.arange(395, 405))[:, 0].tolist() == [*[0] * 9, 2 - 404]
