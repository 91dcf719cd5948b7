"""A service of several shards in this process: what a client sees of it is what it sees of any other."""

from __future__ import annotations

import numpy as np
import pytest

import ps


def test_four_shards_in_this_process_share_the_rows() -> None:
    with ps.connect("inproc:shards=4") as client:
        client.create_table(ps.TableConfig(name="t", dim=2, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        ids = np.arange(-500, 500)
        client.push("t", ids, np.repeat(-ids[:, None], 2, axis=1).astype(np.float32))
        assert client.pull("t", ids[::-1])[:, 1].tolist() == ids[::-1].tolist()
        stats = client.stats()["shards"]
        assert sorted(shard["shard_id"] for shard in stats) == [0, 1, 2, 3]
        rows = [shard["tables"]["t"]["rows"]["hot"] for shard in stats]
        assert sum(rows) == 1000
        assert min(rows) > 150
        with pytest.raises(ps.TableExists):
            client.create_table(ps.TableConfig(name="t", dim=3))
        client.drop_table("t")
        with pytest.raises(ps.TableNotFound):
            client.pull("t", ids)


def test_each_of_them_is_a_service_of_its_own() -> None:
    with ps.connect("inproc:shards=2") as one, ps.connect("inproc:shards=2") as other:
        one.create_table(ps.TableConfig(name="t", dim=2))
        other.create_table(ps.TableConfig(name="t", dim=3))
        assert (one.pull("t", [1]).shape, other.pull("t", [1]).shape) == ((1, 2), (1, 3))


@pytest.mark.parametrize("asked", ["shards=0", "shards=", "shards=65", "shards=-1", "shards=2.0", "shard=2", "="])
def test_what_asks_for_no_service_is_told_how_to(asked: str) -> None:
    with pytest.raises(ps.InvalidArgument, match='asks for no service: give "inproc:" for one shard'):
        ps.connect(f"inproc:{asked}")
