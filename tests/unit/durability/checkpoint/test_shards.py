"""Real shards: saved into files, and back from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.load import check_fits, load_rows, load_table
from ps.durability.checkpoint.manifest import Manifest, Part, Routing
from ps.durability.state import checkpoint, kept, restore
from ps.errors import ConfigError, DimensionMismatch, NotFound
from ps.kernels.index.hashing import partitions
from ps.shard import Shard
from tests.conftest import QUIET
from tests.unit.durability.memory import check_same, whole
from tests.unit.shard.helpers import DIM, a_write, everything, ids_of, new_table, push_ids, read

ALL_P = np.ones(4096, np.bool_)


@contextmanager
def running(folder: Path | None = None, **settings: Any) -> Iterator[Shard]:
    config = QUIET.having(disk={"path": folder}, **settings) if folder is not None else QUIET.having(**settings)
    shard = Shard(0, config)
    try:
        yield shard
    finally:
        shard.close()


def save(there: Checkpoints, *shards: Shard, base: str | None = None) -> str:
    name = there.new_name()
    parts: list[Part] = []
    for number, shard in enumerate(shards):
        before = None if base is None else there.manifest(base).parts[number].since()
        writer = there.part(name, number, base)
        checkpoint(shard, writer, before)
        parts.append(writer.finish())
    tables = {table.config.name: table.config.to_json() for shard in shards for table in shard.tables.values()}
    there.complete(name, Manifest(name, 1.0, "0.1", "s", Routing(len(shards)), tables, tuple(parts), base))
    for shard, part in zip(shards, parts, strict=True):
        kept(shard, part.version)
    assert not there.verify(name)
    return name


def with_rows(shard: Shard, ids: range | list[int], **settings: Any) -> Shard:
    settings = {"optimizer": ps.Adam(lr=0.1), "initializer": ps.Normal(), **settings}
    new_table(shard, **settings)
    rng = np.random.default_rng(0)
    for start in range(0, len(ids), 100):
        some = list(ids[start : start + 100])
        push_ids(shard, "t", some, rng.random((len(some), DIM), np.float32))
    return shard


@pytest.mark.parametrize("url", ["", "memory://exact"])
def test_a_shard_comes_back_exactly(tmp_path: Path, url: str) -> None:
    there = Checkpoints(url or str(tmp_path / "there"))
    with running(tmp_path / "one") as shard, running(tmp_path / "two") as other:
        with_rows(shard, range(1000), swap_fraction=0.5)
        shard.remove(a_write(), ids_of("t", range(3, 700, 50)))
        name = save(there, shard)
        assert restore(other, there.source(name, 0)) == shard.version
        check_same(whole(other), whole(shard))
        (part,) = there.manifest(name).parts
        assert any(file.name.endswith(".sst") for file in part.files)
        assert part.version == shard.version
        assert part.workers == {1: max(part.workers.values())}
    there.remove(name)


@pytest.mark.parametrize("disk", [False, True])
def test_a_chain_of_increments_comes_back_as_the_newest(tmp_path: Path, disk: bool) -> None:
    """Rows are changed, removed, created again, and go to disk and come up again, between checkpoints."""
    there, rng = Checkpoints(str(tmp_path / "there")), np.random.default_rng(1)
    folders = (tmp_path / "one", tmp_path / "two") if disk else (None, None)
    with running(folders[0]) as shard, running(folders[1]) as other, running() as without:
        with_rows(shard, range(1500), swap_fraction=0.6, half_life_pushes=100)
        name = save(there, shard)
        for _ in range(3):
            some = rng.choice(2000, 60, replace=False).tolist()
            push_ids(shard, "t", some, rng.random((60, DIM), np.float32))
            shard.remove(a_write(), ids_of("t", rng.choice(1500, 40, replace=False).tolist()))
            read(shard, "t", rng.choice(1500, 100, replace=False).tolist())
            name = save(there, shard, base=name)
        assert restore(other, there.source(name, 0)) == shard.version
        assert restore(without, there.source(name, 0)) == shard.version
        for again in (other, without):
            mine, his = _rows(shard), _rows(again)
            assert mine.keys() == his.keys()
            assert mine == his
        assert there.manifest(name).parts[0].nbytes < there.manifest(there.list()[0].name).parts[0].nbytes


def _rows(shard: Shard, table: str = "t") -> dict[int, tuple[bytes, bytes]]:
    records, end = shard.engine.run(lambda: shard.tables[table].page(0, 1_000_000))
    assert not end
    return {
        id_: (records.rows_NB[i].tobytes(), records.statistics_N2[i].tobytes())
        for i, id_ in enumerate(records.ids_N.tolist())
    }


def test_rows_go_to_other_shards_with_their_bytes_and_their_order(tmp_path: Path) -> None:
    """From two shards with disks to three without, by partition, and from those to one."""
    there = Checkpoints(str(tmp_path / "there"))
    half = np.arange(4096) % 2 == 0
    with ExitStack() as stack:
        first = [stack.enter_context(running(tmp_path / f"{k}")) for k in range(2)]
        ids_N = np.arange(1200)
        for shard, owned_P in zip(first, (half, ~half), strict=True):
            with_rows(shard, ids_N[owned(ids_N, owned_P)].tolist(), swap_fraction=0.7)
        push_ids(first[0], "t", ids_N[owned(ids_N, half)][:50].tolist(), np.ones((50, DIM), np.float32))
        name = save(there, *first)
        three = [stack.enter_context(running()) for _ in range(3)]
        for k, shard in enumerate(three):
            new_table(shard, optimizer=ps.Adam(lr=0.1), initializer=ps.Normal())
            load_table(shard, there.table(name, "t"), "t", np.arange(4096) % 3 == k)
            assert shard.tables["t"].stats()["steps"] == max(each.tables["t"].stats()["steps"] for each in first)
        again = save(there, *three)
        one = stack.enter_context(running())
        new_table(one, "other.name", optimizer=ps.Adam(lr=0.1), initializer=ps.Normal())
        done: list[int] = []
        assert load_table(one, there.table(again, "t"), "other.name", ALL_P, told=done.append) == 1200 == done[-1]
        saved = {id_: row for shard in first for id_, (row, _) in _rows(shard).items()}
        assert {id_: row for id_, (row, _) in _rows(one, "other.name").items()} == saved
        scores = {id_: rank for shard in first for id_, rank in _ranks(shard, "t").items()}
        assert _ranks(one, "other.name") == scores


def _ranks(shard: Shard, table: str) -> dict[int, int]:
    """Of each row, its rank beside the clock."""
    found = shard.engine.run(lambda: shard.tables[table].page(0, 1_000_000)[0])
    ranking = shard.tables[table].ranking
    return dict(zip(found.ids_N.tolist(), (ranking.ranks(found.statistics_N2) - ranking.tick).tolist(), strict=True))


def owned(ids_N: Any, owned_P: Any) -> Any:
    partitions_N = np.empty(len(ids_N), np.int32)
    partitions(ids_N, partitions_N)
    return owned_P[partitions_N]


def test_rows_of_half_precision_come_with_the_values_that_readers_see(tmp_path: Path) -> None:
    there = Checkpoints(str(tmp_path / "there"))
    with running(tmp_path / "one") as shard, running() as other:
        with_rows(shard, range(600), cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=64, swap_fraction=0.5)
        push_ids(shard, "t", range(600, 640), np.full((40, DIM), 0.1, np.float32))
        expected = read(shard, "t", range(640))
        assert np.unique(expected.astype(np.float16).astype(np.float32) == expected).tolist() == [False, True]
        name = save(there, shard)
        new_table(other, optimizer=ps.Adam(lr=0.1))
        assert load_table(other, there.table(name, "t"), "t", ALL_P) == 640
        assert read(other, "t", range(640)).tobytes() == expected.tobytes()


def test_values_come_without_state_where_it_is_asked_for(tmp_path: Path) -> None:
    there = Checkpoints(str(tmp_path / "there"))
    with running() as shard, running() as other:
        with_rows(shard, range(100))
        name = save(there, shard)
        new_table(other, optimizer=ps.Adagrad(lr=0.1, initial_accumulator=0.5))
        push_ids(other, "t", [7, 200], np.ones((2, DIM), np.float32))
        before = everything(other, "t")
        load_table(other, there.table(name, "t"), "t", ALL_P, values_only=True)
        ids_N, rows_NW, _ = everything(other, "t")
        assert ids_N.tolist() == [*range(100), 200]
        assert rows_NW[:100, :DIM].tobytes() == read(shard, "t", range(100)).tobytes()
        assert (rows_NW[[0, 1, 99], DIM:] == 0.5).all()
        assert (rows_NW[7, DIM:] == 1.5).all(), "the row was there, and keeps its state"
        assert rows_NW[100].tobytes() == before[1][1].tobytes()
        assert other.tables["t"].stats()["steps"] == 1


def test_rows_that_do_not_fit_are_refused_and_the_error_names_both(tmp_path: Path) -> None:
    sgd, adam = (ps.TableConfig(name=name, dim=4, optimizer=kind()) for name, kind in (("a", ps.SGD), ("b", ps.Adam)))
    cores = ps.TableConfig(name="c", dim=4, optimizer=ps.SGD(), cold=ps.TensorTrain(rows=60, ranks=2))
    with pytest.raises(DimensionMismatch, match="'b' has dim 5, and the saved 'a' has 4"):
        check_fits(sgd, adam.model_copy(update={"dim": 5}))
    with pytest.raises(ConfigError, match="'b' is trained by adam, and the saved 'a' by sgd: restore values only"):
        check_fits(sgd, adam)
    check_fits(sgd, adam, values_only=True)
    with pytest.raises(ConfigError, match="cold=None, 'c' has cold=TensorTrain"):
        check_fits(sgd, cores, values_only=True)
    there = Checkpoints(str(tmp_path))
    with running() as shard:
        shard.create_table(cores)
        name = save(there, shard)
        with pytest.raises(ConfigError, match="into a new service of 1 shards"):
            there.rows(name, "c", ALL_P)
        with pytest.raises(NotFound, match="has no table 'x': it has c"):
            there.rows(name, "x", ALL_P)
        with running() as other:
            assert restore(other, there.source(name, 0)) == shard.version
            check_same(whole(other), whole(shard))


def test_what_is_loaded_is_logged_and_refused_as_a_whole() -> None:
    with running() as shard:
        new_table(shard)
        for rows_NW, scores_N in (
            (np.ones((2, DIM + 1), np.float32), [1, 1]),
            (np.ones((2, DIM), np.float32), [1, -1]),
            (np.ones((2, DIM), np.float32), [1, np.inf]),
            (np.ones((2, DIM), np.float32), [1]),
        ):
            with pytest.raises(ps.InvalidArgument):
                load_rows(shard, ids_of("t", [1, 2]), rows_NW, np.array(scores_N, np.float32))
        assert shard.version == 1
        assert len(shard.tables["t"]) == 0


def test_a_part_must_build_on_what_the_shard_knows_to_be_kept(tmp_path: Path) -> None:
    there = Checkpoints(str(tmp_path))
    with running() as shard:
        with_rows(shard, range(10))
        first = save(there, shard)
        shard.remove(a_write(), ids_of("t", [3]))
        save(there, shard, base=first)
        writer = there.part(there.new_name(), 0, first)
        with pytest.raises(ps.InvalidArgument, match="knows what was removed since version"):
            checkpoint(shard, writer, there.manifest(first).parts[0].since())
        writer.abort()
