"""Trains tables with `signs` through a service of one process, and compares them with the reference to the bit.

    python -m tests.unit.optimizers.train_signs FOLDER

FOLDER has signs.py and reference/signs.py: they count as if they lay in ps/optimizers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import ps.optimizers
import ps.optimizers.reference

IDS, DIM, PUSHES = 400, 6, 130


def main(folder: Path) -> None:
    ps.optimizers.__path__.append(str(folder))
    ps.optimizers.reference.__path__.append(str(folder / "reference"))
    from ps.optimizers.registry import OPTIMIZERS
    from ps.server.shard_server import ShardServer

    signs = OPTIMIZERS["signs"].config()
    kinds = {"fp32": {}, "fp16": {"cold": ps.Fp16(hot_fraction=0.1), "half_life_pushes": 64}}
    for disk in (None, folder / "disk"):
        with (
            ShardServer(0, ps.ServiceConfig(watching={"metrics": False}, disk={"path": disk})) as server,
            ps.connect(server.address) as client,
        ):
            for name, cold in kinds.items():
                fields = {"initializer": ps.Constant(), "swap_fraction": 0.9, **cold}
                client.create_table(ps.TableConfig(name=name, dim=DIM, optimizer=signs, **fields))
                train(client, name, signs, OPTIMIZERS["signs"].reference())
                rows = server.shard.stats()["tables"][name]["rows"]
                print(name, "disk" if disk else "RAM", rows)
                assert not disk or rows["disk"]
                assert name == "fp32" or disk or rows["cold"]


def train(client, name, signs, reference):
    """Some ids come seldom: their rows are cold, and on disk where there is one. All numbers fit 16 bits exactly, so
    rounding hides nothing that is lost."""
    rng = np.random.default_rng(0)
    rows_SW = np.zeros((IDS, 2 * DIM), np.float32)
    for push in range(1, PUSHES + 1):
        ids_N = rng.permutation(IDS if push % 10 == 1 else 40)[: IDS if push == 1 else 30]
        grads_ND = rng.integers(-1, 2, (len(ids_N), DIM)).astype(np.float32)
        client.push(name, ids_N, grads_ND)
        reference(rows_SW, ids_N, grads_ND, *signs.arguments(push))
        if push % 26 == 0:
            values_ND = client.pull(name, np.arange(IDS))
            assert np.asarray(values_ND).tobytes() == rows_SW[:, :DIM].tobytes(), (name, push)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
