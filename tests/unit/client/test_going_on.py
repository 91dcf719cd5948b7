"""A client that goes on as the worker that another one was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ps
from ps.cluster import inprocess

ADAM = ps.TableConfig(name="t", dim=2, optimizer=ps.Adam(lr=0.1), initializer=ps.Constant())
IDS, GRADS = np.arange(8), np.ones((8, 2), np.float32)


def pushed(address: str, goes_on: bool) -> np.ndarray:
    """The rows after twenty pushes, of which most name one id, and so go to one shard; the last ten are another
    client's."""
    with ps.connect(address) as first, ps.connect(address) as second:
        first.create_table(ADAM)
        for number in range(20):
            if number == 10 and goes_on:
                second.load_state_dict(first.state_dict())
            n = 8 if number % 4 == 0 else 1
            (first if number < 10 else second).push("t", IDS[:n], GRADS[:n])
        return np.asarray(second.pull("t", IDS))


def test_a_client_that_goes_on_as_a_worker_counts_adams_steps_on() -> None:
    """A shard has not seen all pushes of a worker. It learns how many there were from the next one that it sees."""
    one, many, others = inprocess.start(), inprocess.start(shards=3), inprocess.start(shards=3)
    expected = pushed(one, goes_on=False)
    np.testing.assert_array_equal(pushed(many, goes_on=True), expected)
    assert not np.array_equal(pushed(others, goes_on=False), expected)


@pytest.mark.parametrize("state", [{}, None, {"worker_id": "x", "sequence": 1, "pushes": {}}, {"worker_id": 1}])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with ps.connect("inproc:") as client, pytest.raises(ps.InvalidArgument, match="is no state of a client"):
        client.load_state_dict(state)
