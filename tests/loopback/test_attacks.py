"""Whatever one client does, the others are served: nothing of theirs is refused for good, and what was acknowledged is
there, once."""

from __future__ import annotations

import pytest

from benchmarks.service.attack import attacked
from benchmarks.service.attacks import ATTACKS


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_honest_clients_are_served_under(name: str) -> None:
    found = attacked(name, seconds=2.0)
    assert all(client.pushed for client in found.clients)
    assert [client.refused for client in found.clients] == [[]] * len(found.clients)
    assert found.sums_right
