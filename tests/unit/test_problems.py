"""The streams that benchmarks of quality learn from: what there is, in which order, that nothing tells the answer."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.problems.bursty import FEATURES, Bursty
from benchmarks.problems.movielens import MovieLens
from benchmarks.problems.retail import FILE, Retail
from benchmarks.problems.stream import Stream, present
from worker.data.errors import MissingDependency


def real(make: Callable[[], Stream]) -> Stream:
    try:
        return make()
    except MissingDependency as missing:
        pytest.skip(str(missing))


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    monkeypatch.setenv("EMBEDDING_PS_DATA", os.environ.get("EMBEDDING_PS_DATA", str(beside)))


def ids_by_feature(stream: Stream) -> dict[str, np.ndarray]:
    source = stream.source(0)
    (whole,) = source.batches(source.len_rows or 1)
    return {spec.name: whole.sparse[spec.name].ids.numpy() for spec in source.features}


def test_bursty_ids_are_near_each_other_and_steady_ones_are_not() -> None:
    ids = ids_by_feature(Bursty(20_000))
    for name, bursts in FEATURES.items():
        order_N = np.argsort(ids[name], kind="stable")
        same_N = np.diff(ids[name][order_N]) == 0
        gap = np.median(np.diff(order_N)[same_N])
        if name in ("place", "device"):
            assert gap > 1.5 * 20_000 / (20_000 / bursts.ids) / np.e  # as far apart as by chance
        else:
            assert gap < 2 * bursts.spread < 0.2 * bursts.ids


def test_bursty_clicks_are_the_same_every_time_and_others_for_another_seed() -> None:
    one, again, other = (next(Bursty(2_000).source(seed).batches(2_000)) for seed in (1, 1, 2))
    for name in FEATURES:
        np.testing.assert_array_equal(one.sparse[name].ids, again.sparse[name].ids)
        assert (one.sparse[name].ids != other.sparse[name].ids).any()
    np.testing.assert_array_equal(one.labels, again.labels)


def test_a_line_of_an_invoice_is_beside_an_item_that_is_not_in_it(data: None) -> None:
    stream = real(lambda: Retail(3_000))
    source = stream.source(0)
    (whole,) = source.batches(6_000)
    assert whole.labels.numpy().reshape(-1, 2).tolist() == [[1, 0]] * 3_000
    ids = ids_by_feature(stream)
    for name in ("customer", "previous", "country", "hour"):
        np.testing.assert_array_equal(ids[name][::2], ids[name][1::2])
    sold, drawn = ids["item"][::2], ids["item"][1::2]
    assert (sold == drawn).mean() < 0.01
    later_N = np.arange(3_000) > 1_500  # of what was sold before, but for the first invoice
    assert np.isin(drawn[later_N], sold).all()
    assert stream.window() == slice(3_000, None)


def test_ratings_are_in_the_order_of_time_and_users_come_in_bursts() -> None:
    ids = ids_by_feature(real(MovieLens))
    assert (len(np.unique(ids["user"])), len(np.unique(ids["movie"]))) == (671, 9_066)
    again = np.diff(ids["user"]) == 0
    assert again.mean() > 0.9


def test_a_stream_that_is_not_there_is_passed_over_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("EMBEDDING_PS_DATA", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", absent)
    found = present("dctquality", [Retail, MovieLens, lambda: Bursty(100)])
    assert [stream.name for stream in found] == ["bursty"]
    lines = capsys.readouterr().err.splitlines()
    assert str(tmp_path / FILE) in lines[0]
    assert "embedding-ps[bench]" in lines[1]
