"""What users say of precision on the wire: checked where they say it, and the same on the other side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.v1 import embedding_pb2 as pb
from ps.wire.formats import PRECISIONS, Formats, TableFormat

precisions = st.sampled_from(sorted(PRECISIONS))
shares = st.floats(0, 1, width=32)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"share": -0.1}, "share: -0.1"),
        ({"share": 1.1}, "share: 1.1"),
        ({"share": float("nan")}, "share: nan"),
        ({"share": True}, "share: True"),
        ({"share": "0.1"}, "share: '0.1'"),
        ({"important": "fp8"}, "important: 'fp8'"),
        ({"others": None}, "others: None"),
        ({"mask_below": -1e-9}, "mask_below: -1e-09"),
        ({"mask_below": float("inf")}, "mask_below: inf"),
        ({"mask_below": 2.0**127}, "mask_below: 1.7"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ps.ConfigError, match=f"ByImportance.{what}"):
        ps.ByImportance(**fields)


@pytest.mark.parametrize("dtype", ["fp8", "FP16", None, 16, ["fp16"], {"t": "fp8"}, {"t": {"u": "fp16"}}, {1: "fp16"}])
def test_an_unknown_wire_dtype_is_named_with_the_choices(dtype: Any) -> None:
    with pytest.raises(ps.DtypeMismatch, match=r"choose one of .*ByImportance|no name of a table"):
        Formats(dtype)


def test_tables_that_are_not_named_are_exact() -> None:
    formats = Formats({"a": "int8", "b": ps.ByImportance(others="fp16", mask_below=0.5)})
    assert formats.of("a") == TableFormat("int8", "int8")
    assert formats.of("b") == TableFormat("fp32", "fp16", 0.1, 0.5)
    assert formats.of("c") == TableFormat()
    assert [formats.of(name).exact for name in "abc"] == [False, False, True]
    assert Formats("fp16").of("anything") == TableFormat("fp16", "fp16")


def test_only_what_changes_no_number_is_exact() -> None:
    assert TableFormat(share=0.5).exact
    assert not TableFormat(mask_below=1e-9).exact
    assert not TableFormat(others="fp16", share=0.0).exact


@given(precisions, precisions, st.none() | shares, st.floats(0, 1024, width=32))
def test_the_shard_reads_what_was_asked(important: str, others: str, share: float | None, mask: float) -> None:
    form = TableFormat(important, others, share, mask)
    assert TableFormat.from_proto(pb.PullFormat.FromString(form.to_proto().SerializeToString())) == form


def test_flags_may_be_asked_for_at_the_formats_own_share_alone() -> None:
    assert TableFormat().flagged(0.2, "t") == TableFormat(share=0.2)
    assert TableFormat(share=0.2).flagged(0.2, "t") == TableFormat(share=0.2)
    with pytest.raises(ps.InvalidArgument, match=r"0.3 of the rows are asked for.*a share of 0.2"):
        TableFormat(share=0.2).flagged(0.3, "t")
    with pytest.raises(ps.InvalidArgument, match="is not a share"):
        TableFormat().flagged(1.5, "t")
