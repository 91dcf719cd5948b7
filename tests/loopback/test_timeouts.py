"""A number of seconds is of any numeric type, or infinite; what is none is refused by name, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

import ps
from ps.nn.modes import Bounded, Group, Synchronous
from ps.round import Round
from ps.seconds import LONGEST_S, seconds
from ps.server.shard_server import ShardServer
from tests.conftest import QUIET
from tests.loopback.tables import block, summing
from worker.train.ranks import Meeting

GOOD = [float("inf"), 1e10, 1e300, 10**400, np.float32(5), np.float64(5), np.int64(5), np.uint8(5), 5, Fraction(11, 2)]
BAD = [float("nan"), np.float32("nan"), 0, -1.0, float("-inf"), -(10**400), "5", True, np.array([5.0]), object()]


@pytest.fixture(scope="module")
def client() -> Iterator[ps.Client]:
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as connected:
        connected.create_table(summing())
        yield connected


CALLS: dict[str, Callable[[ps.Client, object], object]] = {
    "connect": lambda client, s: ps.connect(client.address, timeout_s=s).close(),
    "pull": lambda client, s: client.pull("t", [1], timeout_s=s),
    "push": lambda client, s: client.push("t", [1], block([1]), timeout_s=s),
    "step": lambda client, s: client.prepare({"t": [1]}).pull(timeout_s=s),
    "round": lambda client, s: client.prepare({"t": [1]}).push(
        {"t": block([1])}, in_round=Round("g", 1, 0, 1), timeout_s=s
    ),
    "upsert": lambda client, s: client.upsert("t", [1], block([1]), timeout_s=s),
    "export": lambda client, s: list(client.export("t", timeout_s=s)),
    "evict": lambda client, s: client.evict("t", rows=0, timeout_s=s),
    "stats": lambda client, s: client.stats(timeout_s=s),
    "create": lambda client, s: client.create_table(summing(), exist_ok=True, timeout_s=s),
    "clock": lambda client, s: client.clock("c", rank=0, ranks=1, max_staleness=0).advance(0, timeout_s=s),
    "group": lambda client, s: Synchronous(Group("g", 0, 1, patience_s=s)).start(client),
    "bounded": lambda client, s: Bounded(Group("g", 0, 1, patience_s=s), 1).start(client).begin(0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_call_takes_any_number_of_seconds(client: ps.Client, call: Callable[[ps.Client, object], object]) -> None:
    for given in GOOD:
        call(client, given)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_call_refuses_by_name_what_is_none(
    client: ps.Client, call: Callable[[ps.Client, object], object]
) -> None:
    for given in BAD:
        with pytest.raises(ps.InvalidArgument, match=r"_s=.*a positive number of seconds") as told:
            call(client, given)
        assert repr(given)[:20] in str(told.value)


def test_a_connection_without_a_timeout_is_refused_and_a_call_without_takes_its(client: ps.Client) -> None:
    with pytest.raises(ps.InvalidArgument, match="timeout_s=None"):
        ps.connect(client.address, timeout_s=None)  # type: ignore[arg-type]
    client.pull("t", [1], timeout_s=None)


@pytest.mark.parametrize("given", BAD)
def test_so_do_ranks_and_launch(given: object) -> None:
    with pytest.raises(ps.InvalidArgument, match="patience_s="):
        Meeting(0, 1).join(given)  # type: ignore[arg-type]
    with pytest.raises(ps.InvalidArgument, match="timeout_s="):
        ps.launch(1, timeout_s=given)  # type: ignore[arg-type]


def test_seconds_of_a_service_are_bounded_by_what_locks_take() -> None:
    with pytest.raises(ps.ConfigError, match="drain_timeout_s"):
        ps.ServiceConfig(network={"drain_timeout_s": 1e30})
    assert (
        seconds(float("inf"))
        == seconds(1e9)
        == LONGEST_S
        == ps.ServiceConfig(performance={"prepare_ttl_s": 1e8}).performance.prepare_ttl_s
    )


def test_a_round_that_is_to_wait_for_ever_ends_with_its_call(client: ps.Client) -> None:
    """What the shard may wait for others is the caller's word."""
    step = client.prepare({"t": [1]})
    with pytest.raises(ps.DeadlineExceeded):
        step.push({"t": block([1])}, in_round=Round("alone", 1, 0, 2), timeout_s=np.float32(0.3))
