"""What the trainers of `crash` push, such that a row says which pushes it has.

SGD with a rate of 1, gradients of -1, rows that start at zero: a row counts the pushes that named it. Each trainer has
columns of its own, and everything follows from (trainer, life, number of the push). A push is one step of two tables:
`plain` is float32 in RAM, `half` has cold rows of 16 bits, most of which are on disk. It also names a *marker* on each
shard, an id that only this life of this trainer pushes: it counts how many pushes of that life the shard has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

import ps
from ps.arrays import Ids
from ps.wire.routing import Routing, ShardInfo, split_by_shard

PLAIN, HALF = "plain", "half"
TRAINERS = 4
DIM = 4 * TRAINERS
MARKED = 1000
"""Pushes that one marker counts: 16 bits have whole numbers up to 2048."""
MOST_LIVES = 1024
SALTS = 256
"""Ids among which a marker of each shard is looked for."""
SENT, ACKNOWLEDGED = 0, 1

Progresses = npt.NDArray[np.int64]
"""[TRAINERS, MOST_LIVES, 2]: the last push that a life of a trainer began to send, and the last that was acknowledged;
shared by all processes, so that it outlives them."""


@dataclass(frozen=True)
class Pushes:
    """The pushes of one run."""

    rows: int
    """Ids of each table, beside markers."""
    batch: int
    """Draws of ids in a push, in each table."""
    shards: int
    seed: int = 1

    @classmethod
    def from_json(cls, text: str) -> Pushes:
        """Returns what `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Returns the settings as JSON."""
        return json.dumps(asdict(self))

    def ids(self, trainer: int, life: int, number: int) -> dict[str, Ids]:
        """Returns the ids of a push by table, without markers, each once."""
        rng = np.random.default_rng((self.seed, trainer, life, number))
        drawn_2N = rng.integers(0, self.rows, (2, self.batch))
        return {PLAIN: np.unique(drawn_2N[0]), HALF: np.unique(drawn_2N[1])}

    def push(self, trainer: int, life: int, number: int) -> tuple[dict[str, Ids], dict[str, npt.NDArray[np.float32]]]:
        """Returns ids and gradients of a push by table."""
        ids = self.ids(trainer, life, number)
        ids[PLAIN] = np.concatenate([ids[PLAIN], self.markers(trainer, life, (number - 1) // MARKED)])
        return ids, {table: self.counting(trainer, len(ids_N)) for table, ids_N in ids.items()}

    def counting(self, trainer: int, n: int) -> npt.NDArray[np.float32]:
        """Returns gradients that count one push of a trainer [n, DIM]."""
        grads_ND = np.zeros((n, DIM), np.float32)
        grads_ND[:, trainer::TRAINERS] = -1
        return grads_ND

    def markers(self, trainer: int, life: int, thousand: int) -> Ids:
        """Returns the marker of each shard [shards] for the pushes of that thousand."""
        first = (1 << 40) + ((trainer * MOST_LIVES + life) * (1 << 16) + thousand) * SALTS
        split = split_by_shard(np.arange(first, first + SALTS), self._routing)
        return np.array([split.ids_N[split.starts[shard]] for shard in range(self.shards)])

    def shard_of(self, ids_N: Ids) -> npt.NDArray[np.int64]:
        """Returns the shard of each id."""
        split = split_by_shard(ids_N, self._routing)
        shards_N = np.repeat(np.arange(self.shards), np.diff(split.starts))
        if split.order_N is None:
            return shards_N
        found_N = np.empty(len(ids_N), np.int64)
        found_N[split.order_N] = shards_N
        return found_N

    @cached_property
    def _routing(self) -> Routing:
        return Routing.even(1, [ShardInfo(shard, "") for shard in range(self.shards)])

    def tables(self) -> Mapping[str, ps.TableConfig]:
        """Returns the tables: name -> configuration."""
        plain = ps.TableConfig(
            name=PLAIN, dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant(), swap_fraction=0.0
        )
        cold = {"name": HALF, "cold": ps.Fp16(hot_fraction=0.1), "swap_fraction": 0.7, "half_life_pushes": 64}
        return {PLAIN: plain, HALF: plain.model_copy(update=cold)}


def told(path: Path) -> Progresses:
    """Opens the shared record; a file that is not there is made, of zeros."""
    if not path.exists():
        path.write_bytes(bytes(TRAINERS * MOST_LIVES * 2 * 8))
    return np.memmap(path, np.int64, "r+", shape=(TRAINERS, MOST_LIVES, 2))
