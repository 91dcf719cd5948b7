"""What a trainer may ask of a client besides rows, and that a step's ids are encoded once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest

import ps
from ps.client import calls
from ps.client.table_batch import TableBatch
from ps.nn.embedding.pooled import row_bytes
from ps.wire.encodings import NUMBERS

IDS = np.arange(100)


@pytest.fixture
def client() -> Iterator[ps.Client]:
    by_table: dict[str, str | ps.ByImportance] = {"t": ps.ByImportance(share=0.25), "half": "fp16"}
    with ps.connect("inproc:", wire_dtype=by_table) as connected:
        connected.create_table(ps.TableConfig(name="t", dim=4))
        yield connected


def test_a_client_says_where_it_is_and_how_rows_travel(client: ps.Client) -> None:
    (shard,) = client.shards()
    assert client.address == shard.address
    assert client.wire_dtype("t") == ps.ByImportance(share=0.25)
    assert [client.wire_dtype(name) for name in ("half", "other")] == ["fp16", "fp32"]


def test_what_runs_in_the_background_hands_back_its_result_or_error(client: ps.Client) -> None:
    grads = np.ones((len(IDS), 4), np.float32)
    assert client.background(lambda: client.push("t", IDS, grads)).result(20) is None
    assert client.size("t") == len(IDS)
    with pytest.raises(ps.TableNotFound):
        client.background(lambda: client.push("nothing", IDS, grads), hint=True).result(20)


def test_stats_have_the_tiers_and_this_clients_traffic(client: ps.Client) -> None:
    client.push("t", IDS, np.ones((len(IDS), 4), np.float32))
    stats = client.stats()
    first = stats["tiers"][0]
    assert (first["table"], first["tier"], first["rows"]) == ("t", "hot", len(IDS))
    assert stats["client"]["sent_bytes"]["Push"] > 16 * len(IDS)
    sent = client.traffic()
    assert sent["sent_bytes"]["Push"] == stats["client"]["sent_bytes"]["Push"]
    assert sent["retries"] == 0


def test_ids_of_a_prepared_step_are_encoded_once(client: ps.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the prepare; the push by its handle says their digest, which the shard compares."""
    encoded: list[int] = []
    plain = TableBatch.part

    def counted(table: TableBatch, shard: int) -> object:
        encoded.append(shard)
        return plain(table, shard)

    monkeypatch.setattr(TableBatch, "part", counted)
    step = client.prepare({"t": IDS})
    step.pull()
    step.push({"t": np.ones((len(IDS), 4), np.float32)})
    assert encoded == [0]


def test_no_part_of_a_client_has_more_calls_than_one_can_learn() -> None:
    parts = [part for part in ps.Client.__mro__ if part.__module__.startswith(("ps.client.client", calls.__name__))]
    assert len(parts) == 6
    for part in parts:
        own = [name for name, value in vars(part).items() if inspect.isfunction(value) and not name.startswith("_")]
        assert len(own) <= 9, (part.__name__, own)


@pytest.mark.parametrize("precision", NUMBERS)
def test_pooling_knows_the_bytes_of_a_row_on_the_wire(precision: str) -> None:
    assert row_bytes(precision, 24) == NUMBERS[precision].size(1, 24)
