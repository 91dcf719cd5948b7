"""Criteo's format: written, read, broken on purpose."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process_model import train

from ps.errors import InvalidArgument
from ps.nn.batch import Batch
from tests.criteo_files import write_criteo
from worker.data.criteo import Criteo
from worker.data.criteo_lines import MAX_LINE_BYTES, line_blocks
from worker.data.criteo_parser import MISSING_HEX, MISSING_INTEGER, parse
from worker.data.errors import DataError, MalformedFile, MalformedLine, UnreadableFile
from worker.data.files import matching

ROWS = 7200

INTEGERS = st.none() | st.integers(-(10**18) + 1, 10**18 - 1)
HEXES = st.none() | st.integers(0, 2**32 - 1)
LINES = st.lists(
    st.tuples(
        st.sampled_from([0, 1]), st.lists(INTEGERS, min_size=13, max_size=13), st.lists(HEXES, min_size=26, max_size=26)
    ),
    max_size=4,
)


def line(label: str = "1", integers: str = "5", hexes: str = "0a0b0c0d") -> str:
    return "\t".join([label, *[integers] * 13, *[hexes] * 26])


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("criteo") / "day_0.tsv"
    write_criteo(path, ROWS, seed=11, missing=0.15)
    return path


def read(path: Path, **options) -> Batch:
    (batch,) = Criteo(path, **options).batches(10**9)
    return batch


@settings(deadline=None)  # the first example compiles the parser
@given(LINES, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_every_value_comes_back(lines, ends_with_newline, newline):
    def text(value, form):
        return "" if value is None else format(value, form)

    rows = [
        "\t".join([str(label), *[text(i, "d") for i in integers], *[text(h, "x") for h in hexes]])
        for label, integers, hexes in lines
    ]
    block = newline.join(rows) + (newline if ends_with_newline and rows else "")
    parsed = parse(block.encode())
    assert parsed.malformed == []
    assert parsed.lines == len(lines)
    assert parsed.labels.tolist() == [label for label, _, _ in lines]
    expected = [[MISSING_INTEGER if i is None else i for i in integers] for _, integers, _ in lines]
    assert parsed.integers.tolist() == expected
    expected = [[MISSING_HEX if h is None else h for h in hexes] for _, _, hexes in lines]
    assert parsed.hexes.T.tolist() == expected


def test_the_generated_file_against_a_reader_written_line_by_line(logs):
    batch = read(logs)
    rows = [text.split("\t") for text in logs.read_text().splitlines()]
    assert len(batch) == ROWS == len(rows)
    assert batch.labels.tolist() == [float(row[0]) for row in rows]
    dense = [[np.log1p(max(int(field or 0), 0)) for field in row[1:14]] for row in rows]
    np.testing.assert_allclose(batch.dense.numpy(), dense, rtol=1e-6)
    for place, name in enumerate(f"C{n}" for n in range(1, 27)):
        values = [int(row[14 + place], 16) if row[14 + place] else 2**32 for row in rows]
        assert batch.sparse[name].ids.tolist() == [place << 40 | value for value in values]


def test_the_generated_file_has_missing_fields_everywhere(logs):
    empty = np.array([[not field for field in text.split("\t")] for text in logs.read_text().splitlines()])
    assert not empty[:, 0].any()
    assert (np.abs(empty[:, 1:].mean(axis=0) - 0.15) < 0.03).all()


def test_the_generator_repeats_itself(logs, tmp_path):
    write_criteo(tmp_path / "again.tsv", ROWS, seed=11, missing=0.15)
    write_criteo(tmp_path / "other.tsv", ROWS, seed=12, missing=0.15)
    assert (tmp_path / "again.tsv").read_bytes() == logs.read_bytes() != (tmp_path / "other.tsv").read_bytes()


def test_gzip_is_read_whatever_its_name(logs, tmp_path):
    (tmp_path / "named.tsv").write_bytes(gzip.compress(logs.read_bytes()))
    write_criteo(tmp_path / "written.gz", ROWS, seed=11, missing=0.15)
    for name in ("named.tsv", "written.gz"):
        assert torch.equal(read(tmp_path / name).dense, read(logs).dense)


def test_missing_values_and_fields_have_ids_of_their_own(tmp_path):
    (tmp_path / "x").write_text(line(hexes="") + "\n" + line(hexes="ffffffff") + "\n" + line(hexes="0") + "\n")
    ids = torch.cat([bags.ids for bags in read(tmp_path / "x").sparse.values()])
    assert len(ids.unique()) == 3 * 26


def test_one_shared_table_or_26():
    assert {feature.table for feature in Criteo(Path("x"), table="all").features} == {"all"}
    assert len({feature.table for feature in Criteo(Path("x")).features}) == 26


MALFORMED = {
    line() + "\t1": "41 fields; 40 are needed",
    line().rsplit("\t", 1)[0]: "39 fields; 40 are needed",
    "x": "1 fields; 40 are needed",
    "\t": "2 fields; 40 are needed",
    line(label="2"): "field 1 is '2'; it must be the label",
    line(label=""): "field 1 is ''; it must be the label",
    line(integers="1.5"): "field 2 is '1.5'; it must be an integer",
    line(integers="-"): "field 2 is '-'; it must be an integer",
    line(integers="9" * 19): "it must be an integer",
    line(hexes="0x12"): "field 15 is '0x12'; it must be 8 hex digits at most",
    line(hexes="123456789"): "field 15 is '123456789'; it must be 8 hex digits at most",
    line(hexes="ébc"): "field 15 is 'ébc'",
    "\x00" * 500: "1 fields; 40 are needed",
}


@pytest.mark.parametrize(("bad", "reason"), MALFORMED.items())
def test_a_malformed_line_is_skipped_and_reported(tmp_path, caplog, bad, reason):
    path = tmp_path / "day_0"
    path.write_text("\n".join([line(integers="1"), bad, line(integers="2"), bad, line(integers="3")]) + "\n")
    source = Criteo(path)
    with caplog.at_level(logging.WARNING):
        (batch,) = source.batches(100)
    np.testing.assert_allclose(batch.dense[:, 0], np.log1p([1, 2, 3]), rtol=1e-6)
    assert source.skipped == 2
    assert source.remarks()[0].startswith(f"2 malformed lines were skipped; the first: {path}:2: ")
    assert reason in source.remarks()[0]
    assert f"{path}:4: " in caplog.text


@pytest.mark.parametrize(("bad", "reason"), MALFORMED.items())
def test_a_malformed_line_stops_the_run_if_asked_to(tmp_path, bad, reason):
    path = tmp_path / "day_0"
    path.write_text("\n".join([line(), line(), bad, line()]) + "\n")
    with pytest.raises(MalformedLine, match=f"^{path}:3: ") as caught:
        list(Criteo(path, on_error="stop").batches(100))
    assert isinstance(caught.value, ValueError)
    assert (caught.value.path, caught.value.line_number) == (path, 3)
    assert reason in caught.value.reason


def test_line_numbers_count_over_blocks_and_begin_anew_in_each_file(logs, tmp_path):
    """The file is several blocks of 4 MiB long; the second file is broken in its last line, which has no end."""
    first, second = tmp_path / "day_0", tmp_path / "day_1"
    whole = logs.read_text() * 3
    assert len(whole) > 5_000_000
    first.write_text(whole + "\n \nbroken\n" + logs.read_text())  # blank lines are counted and left out
    second.write_text(line() + "\n" + line(label="x"))
    source = Criteo([first, second])
    assert sum(len(batch) for batch in source.batches(1000)) == 4 * ROWS + 1
    assert source.skipped == 2
    assert f"{first}:{3 * ROWS + 3}: 1 fields" in source.remarks()[0]
    with pytest.raises(MalformedLine, match=f"{second}:2: field 1 is 'x'"):
        list(Criteo(second, on_error="stop").batches(10))


def test_a_second_pass_counts_from_zero(tmp_path):
    (tmp_path / "x").write_text(line() + "\nbroken\n")
    source = Criteo(tmp_path / "x")
    for _ in range(2):
        assert sum(len(batch) for batch in source.batches(1)) == 1
        assert source.skipped == 1


@settings(deadline=None)  # files
@given(st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=20), st.integers(1, 64))
def test_blocks_are_whole_lines_and_nothing_is_lost(tmp_path_factory, lines, block_bytes):
    path = tmp_path_factory.mktemp("lines") / "x"
    path.write_bytes(b"-" + b"\n".join(lines))  # the dash: no line may look like gzip
    blocks = list(line_blocks(path, block_bytes))
    assert b"".join(blocks) == path.read_bytes()
    assert all(block.endswith(b"\n") for block in blocks[:-1])


def test_a_line_without_end_takes_little_memory_and_is_one_malformed_line(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(line().encode() + b"\n" + b"7" * (40 << 20) + b"\n" + line().encode() + b"\n")
    assert max(map(len, line_blocks(path))) <= (4 << 20) + MAX_LINE_BYTES
    source = Criteo(path)
    assert sum(len(batch) for batch in source.batches(10)) == 2
    assert source.skipped == 1
    assert f"{path}:2: " in source.remarks()[0]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_blank_lines_are_no_lines_and_a_byte_order_mark_is_no_text(tmp_path, newline):
    text = newline.join(["", line(integers="1"), "", "  ", line(integers="2"), ""])
    for name, data in (("plain", text.encode("utf-8-sig")), ("zipped", gzip.compress(text.encode("utf-8-sig")))):
        for content in (data, data.replace(b"\xef\xbb\xbf", b"")):
            (tmp_path / name).write_bytes(content)
            source = Criteo(tmp_path / name, on_error="stop")
            (batch,) = source.batches(10)
            np.testing.assert_allclose(batch.dense[:, 0], np.log1p([1, 2]), rtol=1e-6)
            assert source.remarks() == ()
    (tmp_path / "plain").write_bytes(("x" + newline + line()).encode("utf-8-sig"))
    with pytest.raises(MalformedLine, match="plain:1: 1 fields"):
        list(Criteo(tmp_path / "plain", on_error="stop").batches(1))


ZIPPED = gzip.compress((line() + "\n").encode() * 3)
UNREADABLE = {
    "cut": (ZIPPED[:-10], "the gzip file ends early, it was cut short.*download or pack it again"),
    "cut in its head": (ZIPPED[:5], "ends early"),
    "flipped": (ZIPPED[:-6] + b"xxxxxx", "the gzip file is damaged .*CRC"),
    "no deflate": (ZIPPED[:10] + b"\xff" * 50, "the gzip file is damaged"),
    "with junk behind": (ZIPPED + b"junk", "the gzip file is damaged"),
    "zip": (b"PK\x03\x04" + bytes(30), "is a zip archive: unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "compressed by zstd"),
    "utf-16": ((line() + "\n").encode("utf-16"), "text in UTF-16: `iconv"),
    "empty": (b"", "has no lines, the file is empty"),
    "blank": (b"\n\r\n  \n", "has no lines, the file is empty"),
    "empty gzip": (gzip.compress(b""), "has no lines"),
    "junk": (bytes(range(256)) * 400, "none of .* lines is in Criteo's format; line 1: "),
    "csv": ((line() + "\n").replace("\t", ",").encode() * 3, "none of 3 lines .* line 1: 1 fields; 40 are needed"),
    "one endless line": (b"7" * 100_000, "none of 1 lines"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_log_is_named_with_what_to_do(logs, tmp_path, name):
    data, message = UNREADABLE[name]
    (tmp_path / "day 1").write_bytes(data)
    with pytest.raises(DataError, match=f"^{tmp_path}/day 1: .*{message}") as caught:
        list(Criteo([logs, tmp_path / "day 1"]).batches(1000))
    assert isinstance(caught.value, UnreadableFile | MalformedFile)
    assert "\n" not in str(caught.value)


def test_a_gzip_file_cut_short_says_after_which_line_and_what_is_before_is_read(logs, tmp_path):
    whole = logs.read_bytes() * 3
    (tmp_path / "cut.gz").write_bytes(gzip.compress(whole)[:-1000])
    sizes: list[int] = []
    with pytest.raises(UnreadableFile, match=r"cut\.gz: .* cut short after line ([\d,]+): ") as caught:
        sizes.extend(len(batch) for batch in Criteo(tmp_path / "cut.gz").batches(100))
    said = int(str(caught.value).split("line ")[1].split(":")[0].replace(",", ""))
    assert said - 100 < sum(sizes) <= said < 3 * ROWS


def test_files_that_do_not_open_are_named_before_anything_else(logs, tmp_path):
    for path, message in (
        (tmp_path, r"is a directory: name files in it"),
        (tmp_path / "absent", "does not exist"),
        (logs / "below", "Not a directory"),
    ):
        source = Criteo([logs, path])
        for read_files in (source.check_files, lambda: list(source.batches(10_000))):  # noqa: B023
            with pytest.raises(UnreadableFile, match=f"^{path}: .*{message}"):
                read_files()
    Criteo(logs).check_files()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_named(tmp_path):
    (tmp_path / "x").write_text(line())
    (tmp_path / "x").chmod(0)
    with pytest.raises(UnreadableFile, match="permission denied"):
        Criteo(tmp_path / "x").check_files()


def broken(good: int, bad: int) -> str:
    """So many lines, the bad ones spread evenly."""
    return "".join(
        (line() if i * good // (good + bad) < (i + 1) * good // (good + bad) else "x") + "\n" for i in range(good + bad)
    )


@pytest.mark.parametrize(
    ("good", "bad", "share", "fine"),
    [
        (1, 1, 0.01, True),
        (1, 2, 0.01, False),
        (10, 10, 0.01, True),
        (100, 11, 0.01, False),
        (1089, 11, 0.01, True),
        (1088, 12, 0.01, False),
        (100, 11, 0.1, True),
        (1, 100, 1.0, True),
        (11, 11, 0.0, False),
    ],
)
def test_more_malformed_lines_than_a_share_are_an_error(tmp_path, good, bad, share, fine):
    (tmp_path / "x").write_text(broken(good, bad))
    source = Criteo(tmp_path / "x", max_malformed=share)
    if fine:
        assert sum(len(batch) for batch in source.batches(100)) == good
        assert source.skipped == bad
    else:
        with pytest.raises(MalformedFile, match=rf"{bad} of the first {good + bad:,} lines are .* more than .*%"):
            list(source.batches(100))


def test_a_file_of_another_format_is_an_error_before_its_first_batch(tmp_path):
    (tmp_path / "x").write_text(broken(20_000, 10_000))
    with pytest.raises(MalformedFile, match=r"x: .* malformed, more than 1.00%; line \d+: 1 fields"):
        next(Criteo(tmp_path / "x").batches(1))


def test_patterns_name_files_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for day in (10, 2, 1):
        Path(f"day_{day}").touch()
    Path("odd[1]").touch()
    assert [str(path) for path in matching(["day_*", "odd[1]", "absent"])] == [
        "day_1",
        "day_2",
        "day_10",
        "odd[1]",
        "absent",
    ]
    with pytest.raises(InvalidArgument, match=r"'week_\*' matches no file here"):
        matching(["week_*"])


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(InvalidArgument, match="'ignore'"):
        Criteo(tmp_path / "x", on_error="ignore")
    with pytest.raises(InvalidArgument, match="no path"):
        Criteo([])
    with pytest.raises(InvalidArgument, match="missing is 2"):
        write_criteo(tmp_path / "x", 1, 0, missing=2)
    with pytest.raises(InvalidArgument, match="max_malformed is 2"):
        Criteo(tmp_path / "x", max_malformed=2)


def test_a_model_learns_the_planted_signal(tmp_path):
    best = write_criteo(tmp_path / "x", ROWS, seed=1)
    learnt = train(Criteo(tmp_path / "x"), batch_size=64).auc(slice(ROWS // 2, ROWS))
    assert 0.62 < learnt < best
