"""The precision in which the rows and gradients of a table travel: the settings, and the formats that follow from
them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ps.errors import ConfigError, DtypeMismatch, InvalidArgument, PsError
from ps.v1 import embedding_pb2 as pb

PRECISIONS: dict[str, pb.Precision] = {
    "fp32": pb.PRECISION_FP32,
    "fp16": pb.PRECISION_FP16,
    "int8": pb.PRECISION_INT8,
}
_NAMES: dict[int, str] = {enum: name for name, enum in PRECISIONS.items()}
if set(_NAMES) != set(pb.Precision.values()) - {pb.PRECISION_UNSPECIFIED}:
    raise ImportError("ps.wire.formats does not know every Precision of the proto file")  # a build mistake


@dataclass(frozen=True)
class ByImportance:
    """Sends the most important rows of a table precisely and the others in fewer bytes: rows to the trainer, gradients
    to the shard. The table's `importance` decides which rows are important: by default those that were used often of
    late.

    For a number x of a row whose largest magnitude is M: fp32 keeps it; fp16 rounds it to nearest, by at most 2**-11 of
    x or 2**-25, and cannot hold magnitudes of 65520 and more; int8 rounds it to the nearest of 255 steps from -M to M,
    by at most half a step, 0.4 % of M. There is no error feedback for rounding. `fp16` and `int8` take 2 bytes and 1
    byte a number, int8 4 more a row. Rows on the shards stay as they are: a pull rounds a copy.

    Raises ConfigError for a value out of range.
    """

    share: float = 0.1
    """The share of a shard's rows of the table that is important, in [0, 1]. Rows with the rank at the border are in or
    out together, whichever is nearer. Rows in use are more important than most, so the share of a batch is larger: of
    clicks with the usual skew, a tenth of the rows is most of every batch (docs/decisions/0013). Raise it where rows
    that are seldom used must be exact too; lower it, for example to a thousandth, to save bytes. 0: no row is
    important."""
    important: str = "fp32"
    """The precision of the important rows, and of all gradients in pushes that follow no pull of the same step, because
    then it is not known which rows are important."""
    others: str = "int8"
    """The precision of the other rows, and of ids that have no row. Raise it to "fp16" if the model loses accuracy."""
    mask_below: float = 0.0
    """Elements of a smaller magnitude may be sent as 0: in pulled rows, important or not, and in gradients that
    `step.push` gets as arrays, where what is left out is lost. (ps.nn.EmbeddingBagCollection holds it back and sends it
    later.) Gradients that are sent as `ps.Selected`, or by `client.push`, are sent whole. Masking pays where it makes a
    good part of the elements 0, because every element then takes a bit; raise it while the model loses no accuracy. 0:
    nothing is masked."""

    def __post_init__(self) -> None:
        check_share("ByImportance.share", self.share, ConfigError)
        for name in ("important", "others"):
            if getattr(self, name) not in PRECISIONS:
                raise ConfigError(f"ByImportance.{name}: {getattr(self, name)!r}: choose one of {sorted(PRECISIONS)}")
        check_mask("ByImportance.mask_below", self.mask_below, ConfigError)


WireDtype = str | ByImportance


@dataclass(frozen=True)
class TableFormat:
    """How the rows and gradients of one table travel."""

    important: str = "fp32"
    others: str = "fp32"
    share: float | None = None
    """The share of the rows that counts as important; None: it is not asked which rows are important."""
    mask_below: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every number travels unchanged."""
        return self.important == self.others == "fp32" and not self.mask_below

    @classmethod
    def of(cls, dtype: object) -> TableFormat:
        """Returns the format for a user's setting. Raises DtypeMismatch."""
        if isinstance(dtype, ByImportance):
            return cls(dtype.important, dtype.others, dtype.share, dtype.mask_below)
        if isinstance(dtype, str) and dtype in PRECISIONS:
            return cls(dtype, dtype)
        raise DtypeMismatch(f"wire dtype {dtype!r}: choose one of {sorted(PRECISIONS)}, or ps.ByImportance(...)")

    def by_ids(self) -> TableFormat:
        """Returns the format for a push without a step: it is not known which rows are important, and nothing is left
        out."""
        return replace(self, others=self.important, mask_below=0.0)

    def flagged(self, share: float, table: str) -> TableFormat:
        """Returns a format with which a pull also returns which rows are among the most important `share`. Raises
        InvalidArgument if this format has another share."""
        check_share(f"important share of table {table!r}", share, InvalidArgument)
        if self.share is not None and self.share != share:
            raise InvalidArgument(
                f"table {table!r}: flags of the most important {share} of the rows are asked for, "
                "but its wire dtype divides "
                f"the rows at a share of {self.share}: ask for the same share"
            )
        return replace(self, share=float(share))

    def masking(self, below: float, table: str) -> TableFormat:
        """Returns a format in which elements of a smaller magnitude are 0. Raises InvalidArgument."""
        check_mask(f"mask of table {table!r}", below, InvalidArgument)
        return replace(self, mask_below=float(below))

    def to_proto(self) -> pb.PullFormat:
        """Returns the message with which a pull asks for the format."""
        return pb.PullFormat(
            important=PRECISIONS[self.important],
            others=PRECISIONS[self.others],
            important_share=self.share,
            mask_below=self.mask_below,
        )

    @classmethod
    def from_proto(cls, message: pb.PullFormat) -> TableFormat:
        """Returns the format of a message, which may be anything that a client sends. Raises DtypeMismatch or
        InvalidArgument."""
        share = message.important_share if message.HasField("important_share") else None
        if share is not None:
            check_share("important_share", share, InvalidArgument)
        check_mask("mask_below", message.mask_below, InvalidArgument)
        return cls(_name(message.important), _name(message.others), share, message.mask_below)


class Formats:
    """How the rows and gradients of every table travel."""

    def __init__(self, wire_dtype: WireDtype | Mapping[str, WireDtype]) -> None:
        """wire_dtype: for all tables, or by table; a table that is not named travels in fp32. Raises DtypeMismatch."""
        by_table = wire_dtype if isinstance(wire_dtype, Mapping) else {}
        for name in by_table:
            if not isinstance(name, str):
                raise DtypeMismatch(f"wire dtype by table: {name!r} is no name of a table")
        self._default: WireDtype = "fp32" if isinstance(wire_dtype, Mapping) else wire_dtype
        self._given = dict(by_table)
        self._default_format = TableFormat.of(self._default)
        self._by_table = {name: TableFormat.of(dtype) for name, dtype in by_table.items()}

    def given(self, table: str) -> WireDtype:
        """Returns the user's setting for a table."""
        return self._given.get(table, self._default)

    def of(self, table: str) -> TableFormat:
        """Returns the format of a table."""
        return self._by_table.get(table, self._default_format)


def check_share(what: str, share: Any, error: type[PsError]) -> None:
    """Raises an error unless it is a number in [0, 1]."""
    if not _is_number(share) or not 0 <= share <= 1:
        raise error(f"{what}: {share!r} is not a share of the rows, from 0 to 1")


def check_mask(what: str, mask: Any, error: type[PsError]) -> None:
    """Raises an error unless it is a magnitude of float32."""
    if not _is_number(mask) or not 0 <= mask < 2.0**127:
        raise error(f"{what}: {mask!r} is not a magnitude: give a number from 0 on, below 2**127")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(precision: int) -> str:
    try:
        return _NAMES[precision]
    except KeyError:
        raise DtypeMismatch(f"wire precision {precision}: this version knows {sorted(_NAMES)}") from None
