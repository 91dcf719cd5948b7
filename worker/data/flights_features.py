"""The input of a model for a flight: ids of fields and of crosses of fields, and normalised numbers.

Nothing here reads a column that is known only after the scheduled departure (dep_time, dep_delay, arr_time, air_time,
arr_delay). Centres and scales are rounded constants, not fitted to the rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ps.arrays import Ints
from worker.data.hashing import cross, field_ids, text_words

Columns = npt.NDArray[np.float64]

FIELDS: dict[str, tuple[str, ...]] = {
    "carrier": ("carrier",),
    "origin": ("origin",),
    "dest": ("dest",),
    "tailnum": ("tailnum",),
    "month": ("month",),
    "weekday": ("weekday",),
    "hour": ("hour",),
    "flight": ("carrier", "flight"),
}
"""Feature -> the columns that make its id. A flight number means something only with its carrier."""

CROSSES: dict[str, tuple[str, ...]] = {
    "tailnum_dest": ("tailnum", "dest"),
    "origin_date_hour": ("origin", "date", "hour"),
    "dest_date": ("dest", "date"),
}
"""The hashed crosses. Ids of the last two are used for an hour and for a day only; a table that never evicts keeps them
for ever."""

_CENTRE_SCALE = {
    "temp": (57.0, 18.0),
    "dewp": (42.0, 19.0),
    "humid": (60.0, 19.0),
    "wind_speed": (11.0, 5.5),
    "pressure": (1017.5, 7.4),
    "visib": (9.2, 2.0),
    "built": (2001.0, 7.0),
    "seats": (137.0, 70.0),
}
"""Units of the data: °F, °F, %, mph, hPa, miles, year, seats."""


def sparse_columns(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Returns the ids of all fields and then of all crosses: int64 [F, N]."""
    words = _words(table)
    specs = FIELDS | CROSSES
    return np.stack([field_ids(name, cross(*(words[column] for column in columns))) for name, columns in specs.items()])


def dense_columns(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Returns weather, distance, aircraft, time of day and of year, scaled to about 1, missing values as 0: float32 [N,
    n_dense]."""
    columns = [*_scaled(table), *_weather(table), *_clock(table)]
    return np.stack(columns, axis=1).astype(np.float32)


def _words(table: pd.DataFrame) -> dict[str, Ints]:
    """Returns each column as one 64-bit word for each row."""
    date = pd.to_datetime(table[["year", "month", "day"]])
    words: dict[str, Ints] = {name: table[name].to_numpy(np.int64) for name in ("month", "hour", "flight")}
    words["date"] = table["month"].to_numpy(np.int64) * 100 + table["day"].to_numpy(np.int64)
    words["weekday"] = date.dt.day_of_week.to_numpy().astype(np.int64)
    for name in ("carrier", "origin", "dest", "tailnum"):
        codes_N, values = pd.factorize(table[name].fillna(""))
        words[name] = text_words(np.asarray(values, dtype=np.object_))[codes_N]
    return words


def _scaled(table: pd.DataFrame) -> list[Columns]:
    return [
        _known((table[name].to_numpy(np.float64) - centre) / scale) for name, (centre, scale) in _CENTRE_SCALE.items()
    ]


def _weather(table: pd.DataFrame) -> list[Columns]:
    gust_N, rain_N, distance_N = (table[name].to_numpy(np.float64) for name in ("wind_gust", "precip", "distance"))
    direction_N = np.deg2rad(table["wind_dir"].to_numpy(np.float64))
    wind_N = table["wind_speed"].to_numpy(np.float64) / 10
    return [
        _known((np.log1p(gust_N) - 3.2) / 0.3),
        np.isnan(gust_N).astype(np.float64),  # no gust was reported: a fact of its own
        _known((np.log1p(100 * rain_N) - 0.3) / 0.8),
        _known((np.log(distance_N) - 6.7) / 0.75),
        _known(np.sin(direction_N) * wind_N),
        _known(np.cos(direction_N) * wind_N),
        table["pressure"].isna().to_numpy(np.float64),
        table["temp"].isna().to_numpy(np.float64),  # no weather at all for this hour
    ]


def _clock(table: pd.DataFrame) -> list[Columns]:
    hour_N = table["hour"].to_numpy(np.float64) + table["minute"].to_numpy(np.float64) / 60
    day_N = table["month"].to_numpy(np.float64) * 30.4 + table["day"].to_numpy(np.float64)
    of_day_N, of_year_N = 2 * np.pi * hour_N / 24, 2 * np.pi * day_N / 365
    return [
        (hour_N - 13.5) / 4.7,
        *(wave(angle_N) for angle_N in (of_day_N, of_year_N) for wave in (np.sin, np.cos)),
    ]


def _known(values_N: Columns) -> Columns:
    """Returns the values with 0, which is about the mean, where one is missing."""
    return np.nan_to_num(values_N, nan=0.0)
