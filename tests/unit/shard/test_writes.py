"""The bytes of writes: there and back, pinned, and whatever else they may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.arrays import Ids, Rows
from ps.errors import CorruptWrite
from ps.round import Round
from ps.server.unpacking import WIRE
from ps.shard import Gradients, TableIds
from ps.shard.ledger import WriteId
from ps.shard.requests import BagGradients, Bags, Came
from ps.shard.writes.assign import Assign
from ps.shard.writes.change import ChangeTable
from ps.shard.writes.create import CreateTable
from ps.shard.writes.drop import DropTable
from ps.shard.writes.evict import Evict
from ps.shard.writes.evict_rows import EvictRows
from ps.shard.writes.forget import Forget
from ps.shard.writes.load import Load
from ps.shard.writes.push import Push
from ps.shard.writes.registry import KINDS, _numbered, decode
from ps.shard.writes.remove import Remove
from ps.shard.writes.report import Report
from ps.shard.writes.upsert import Upsert
from ps.shard.writes.whole_round import WholeRound
from ps.shard.writes.write import Write
from ps.v1 import embedding_pb2 as pb
from ps.wire import encodings
from ps.wire.selected import Selected
from ps.wire.sorted_ids import encode_sorted_ids

GOLDEN = Path(__file__).parent / "writes.json"
"""The record of each of `EXAMPLES`, in hexadecimal. It changes only with FORMAT: old logs have such bytes."""


def bytes_of(write: Write) -> bytes:
    return b"".join(write.encode())


def there_and_back(write: Write) -> Write:
    data = bytes_of(write)
    read = decode(data, WIRE)
    assert type(read) is type(write)
    assert bytes_of(read) == data
    assert read.digest() == write.digest()
    assert list(read.entries) == list(write.entries)
    return read


def floats(n: int, dim: int) -> Rows:
    return (np.arange(n * dim, dtype=np.float32).reshape(n, dim) - 3) / 4


def compressed(ids_N: Ids, dim: int, encoding: pb.Encoding, rows_R: Ids | None, elements: bool = False) -> Gradients:
    """As a body that came in this encoding."""
    sent = Selected(rows_R, floats(len(ids_N) if rows_R is None else len(rows_R), dim), elements)
    data = encodings.encode(sent, encoding, len(ids_N))
    found_R, rows_RD = encodings.decode(data, encoding, len(ids_N), dim)
    return Gradients("u", [rows_RD], None, found_R, len(ids_N), None, 9, Came([(encoding, len(data))], data))


IDS_N = np.array([-5, 7, 2**62], np.int64)
SORTED = TableIds("u", IDS_N, np.array([1, 2, 3], np.uint32), packed=encode_sorted_ids(IDS_N))
OF_T = TableIds("t", np.array([3, -1], np.int64))
ENTRY = WriteId(2**63 + 1, 5, 2**127 + 3)
BAGS = Bags(np.array([0, 2, 3]), np.array([0, 1, 2], np.int32))
PLAIN_PUSH = Push(
    ENTRY, [OF_T], [Gradients("t", [floats(2, 3)], np.array([0, 4], np.uint32), None, 2, None, 7)], 12, 99
)
PART = Push(
    WriteId(2, 8, 77),
    [OF_T],
    [Gradients("t", [floats(1, 3)], None, np.array([1]), 2)],
    0,
    0,
    Round("g", 4, 0, 2),
)
SECOND = Push(WriteId(3, 8, 78), [OF_T], [Gradients("t", [floats(2, 3)])], 0, 0, Round("g", 4, 1, 2))
OF_BAGS = Gradients("u", [], None, np.empty(0, np.int64), 3, BagGradients(2, 2, [floats(2, 2)]))
EXAMPLES: dict[str, Write] = {
    "push": PLAIN_PUSH,
    "push of fp16 and sorted ids": Push(
        ENTRY, [OF_T, SORTED], [Gradients("t", [floats(2, 3)]), compressed(IDS_N, 2, pb.ENCODING_FP16, None)]
    ),
    "push of some rows in int8": Push(ENTRY, [SORTED], [compressed(IDS_N, 2, pb.ENCODING_ROWS_INT8, np.array([0, 2]))]),
    "push of bags": Push(ENTRY, [TableIds("u", IDS_N, None, BAGS)], [OF_BAGS]),
    "whole round": WholeRound([PART, SECOND]),
    "upsert": Upsert(ENTRY, OF_T, [floats(1, 3), floats(1, 3)]),
    "assign": Assign(ENTRY, OF_T, [floats(2, 3)]),
    "remove": Remove(ENTRY, OF_T),
    "remove if unchanged": Remove(ENTRY, OF_T, np.array([[1, 2], [3, 2**32 - 1]], np.uint32), np.array([-1])),
    "report": Report(ENTRY, SORTED, np.array([0, 1.5, 3], np.float32)),
    "forget": Forget(OF_T),
    "create": CreateTable(ps.TableConfig(name="t", dim=3, optimizer=ps.Adam(lr=0.5))),
    "drop": DropTable("t"),
    "change": ChangeTable(ENTRY, "t", {"lr": 0.25, "eps": 1e-8}),
    "change of cores": ChangeTable(ENTRY, "user", {"lr": 0.0}, cores=True),
    "evict": Evict({"t": 3, "u": 0}),
    "evict rows": EvictRows(OF_T, np.array([[1, 2], [3, 2**32 - 1]], np.uint32)),
    "load": Load(OF_T, floats(2, 5), np.array([0.5, 0], np.float32), 7),
}
RECORDS = {name: bytes_of(write) for name, write in EXAMPLES.items()}


def test_there_is_an_example_of_each_kind() -> None:
    assert {type(write) for write in EXAMPLES.values()} == set(KINDS.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_of_a_write_are_pinned_and_come_back(name: str) -> None:
    assert RECORDS[name].hex() == json.loads(GOLDEN.read_text())[name]
    there_and_back(EXAMPLES[name])


def test_compressed_bodies_and_ids_stay_as_they_came() -> None:
    push = EXAMPLES["push of fp16 and sorted ids"]
    assert isinstance(push, Push)
    came = push.sent[1].came
    assert came is not None
    assert SORTED.packed is not None
    assert bytes(came.data) in RECORDS["push of fp16 and sorted ids"]
    assert SORTED.packed in RECORDS["push of fp16 and sorted ids"]
    with pytest.raises(CorruptWrite, match=r"decoders of ps\.wire"):
        decode(RECORDS["push of fp16 and sorted ids"])


tables = st.sampled_from(["t", "user", "é" * 40])
ids_of_tables = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6, unique=True)
entries = st.builds(WriteId, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**128 - 1))


@st.composite
def pushes(draw: st.DrawFn) -> Push:
    of: list[TableIds] = []
    sent: list[Gradients] = []
    for table in draw(st.lists(tables, unique=True)):
        ids_N, dim = np.array(draw(ids_of_tables), np.int64), draw(st.integers(1, 5))
        n = len(ids_N)
        numbers = st.none() | st.just(np.arange(n, dtype=np.uint32))
        rows_R = draw(st.none() | st.sets(st.integers(0, max(n - 1, 0)), max_size=n).map(sorted).map(np.array))
        rows_R = None if rows_R is None else rows_R.astype(np.int64)
        rows = floats(n if rows_R is None else len(rows_R), dim)
        cut = draw(st.integers(0, len(rows)))
        of.append(TableIds(table, ids_N, draw(numbers)))
        pushes = draw(st.integers(0, 2**53))
        sent.append(Gradients(table, [rows[:cut], rows[cut:]], draw(numbers), rows_R, n, None, pushes))
    place = draw(st.none() | st.builds(Round, st.just("group"), st.integers(0, 9), st.just(1), st.just(3)))
    return Push(draw(entries), of, sent, draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**64 - 1)), place)


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(pushes())
def test_a_push_comes_back_whole(push: Push) -> None:
    read = there_and_back(push)
    assert isinstance(read, Push)
    assert (read.pulled_version, read.ids_digest, read.place) == (push.pulled_version, push.ids_digest, push.place)
    for ids, was in zip(read.of, push.of, strict=True):
        assert ids.table == was.table
        assert same(ids.ids_N, was.ids_N)
        assert same(ids.counts_N, was.counts_N)
    for part, sent in zip(read.sent, push.sent, strict=True):
        assert (part.table, part.ids, part.pushes) == (sent.table, sent.ids, sent.pushes)
        assert same(part.positives_N, sent.positives_N)
        assert same(part.rows_R, sent.rows_R)
        assert _joined(part.blocks) == _joined(sent.blocks)


def _joined(blocks: Sequence[Rows]) -> bytes:
    return b"".join(block.tobytes() for block in blocks)


@given(push=pushes(), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_a_push_has_the_same_bytes_however_its_rows_are_cut(push: Push, cuts: list[int]) -> None:
    again = Push(push.entry, push.of, [_cut(part, sorted(cuts)) for part in push.sent], push.pulled_version)
    again.ids_digest, again.place = push.ids_digest, push.place
    assert bytes_of(again) == bytes_of(push)
    assert again.digest() == push.digest()


def _cut(part: Gradients, cuts: Sequence[int]) -> Gradients:
    rows = np.concatenate(part.blocks)
    blocks = np.split(rows, [min(cut, len(rows)) for cut in cuts])
    return Gradients(part.table, blocks, part.positives_N, part.rows_R, part.ids, part.bags, part.pushes)


def test_writes_that_say_something_else_have_another_digest() -> None:
    digests = [write.digest() for write in EXAMPLES.values()]
    assert len(set(digests)) == len(digests)
    assert Upsert(ENTRY, OF_T, [floats(2, 3)]).digest() != Assign(ENTRY, OF_T, [floats(2, 3)]).digest()
    assert Assign(WriteId(0, 0, 0), OF_T, [floats(2, 3)]).digest() == EXAMPLES["assign"].digest(), "whoever says it"


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_that_are_cut_or_too_long_are_refused(name: str) -> None:
    record = RECORDS[name]
    for end in range(len(record)):
        with pytest.raises(CorruptWrite):
            decode(record[:end], WIRE)
    with pytest.raises(CorruptWrite, match="too many"):
        decode(record + b"\0", WIRE)


@given(name=st.sampled_from(sorted(RECORDS)), data=st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    damaged = bytearray(RECORDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    try:
        write = decode(bytes(damaged), WIRE)
    except CorruptWrite:
        return
    assert bytes_of(decode(bytes_of(write), WIRE)) == bytes_of(write)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for number in KINDS:
        try:
            decode(bytes((number, 1)) + data, WIRE)
        except CorruptWrite:
            continue


def test_a_length_that_nothing_follows_allocates_nothing() -> None:
    """2**63 ids, in a record of 30 bytes."""
    record = bytearray(bytes_of(Forget(TableIds("t", np.array([1], np.int64)))))
    record[-16:-8] = (2**63).to_bytes(8, "little")
    with pytest.raises(CorruptWrite, match="ends too early"):
        decode(bytes(record), WIRE)


def test_bags_that_point_beside_their_ids_are_refused() -> None:
    record = bytearray(RECORDS["push of bags"])
    at = record.index(BAGS.positions_P.tobytes())
    record[at : at + 4] = (3).to_bytes(4, "little")
    with pytest.raises(CorruptWrite, match="bags in a write"):
        decode(bytes(record), WIRE)


@pytest.mark.parametrize(
    ("was", "is_"),
    [(b"\x02\x00lr", b"\x02\x00ep"), (b"\x03\x00eps", b"\x03\x00lr\0"), (b"t\x00\x02", b"t\x02\x02")],
    ids=["twice", "not in order", "of nothing known"],
)
def test_a_change_that_is_not_canonical_is_refused(was: bytes, is_: bytes) -> None:
    said = bytes_of(ChangeTable(ENTRY, "t", {"lr": 0.25, "ep": 0.5})) if is_ == b"\x02\x00ep" else RECORDS["change"]
    with pytest.raises(CorruptWrite, match="in disorder"):
        decode(said.replace(was, is_), WIRE)


def test_a_change_with_fewer_values_than_settings_is_refused() -> None:
    record = RECORDS["change of cores"]
    with pytest.raises(CorruptWrite, match="0 values for 1 settings"):
        decode(record[:-16] + bytes(8), WIRE)


@given(st.dictionaries(st.text("lrepsβ_1", max_size=9), st.floats(), max_size=5), st.booleans(), entries)
def test_a_change_comes_back_whole(settings: dict[str, float], cores: bool, entry: WriteId) -> None:
    change = ChangeTable(entry, "é", settings, cores)
    read = there_and_back(change)
    assert isinstance(read, ChangeTable)
    assert (read.table, read.cores, sorted(read.settings)) == ("é", cores, sorted(settings))
    again = ChangeTable(entry, "é", dict(reversed(settings.items())), cores)
    assert bytes_of(again) == bytes_of(change), "in whatever order they are given"


def test_a_round_of_rounds_is_refused_before_it_is_read() -> None:
    inner = bytes_of(WholeRound([PART]))
    record = bytearray(inner)
    at = record.index(bytes_of(PART))
    record[at - 8 :] = len(inner).to_bytes(8, "little") + inner
    with pytest.raises(CorruptWrite, match="kind 2"):
        decode(bytes(record), WIRE)


def test_a_kind_without_a_number_of_its_own_is_no_kind() -> None:
    class Another(DropTable):
        NUMBER = DropTable.NUMBER

    with pytest.raises(TypeError, match="each kind of write has its own"):
        _numbered((DropTable, Another))

    class Half(Write):
        NUMBER = 200

    with pytest.raises(TypeError, match="not a kind of write yet"):
        _numbered((Half,))
