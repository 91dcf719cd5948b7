"""The selected elements of a step as bytes, and back: pure functions on the device of their tensors.

    kind of positions u8 | exponent i8 | count k u32 | positions | values        little-endian

    ALL      0 bytes            k = n
    BITMAP   ceil(n / 8)        bit i % 8 of byte i // 8 is element i
    GAPS8    k + sum(g // 255)  g = elements left out before this one; a byte of 255 leaves out 255 and goes on
    GAPS16   2 bytes a word     the same with words and 65535
    values   4 k (fp32) or 2 k (fp16: value * 2^exponent, whose largest lies in [2^14, 2^15])

`pack` takes the kind that is smallest. At density d a gap's entropy is H(d) / d bits (8.1 at 1 %): GAPS8 is within 8 %
of it there. One exponent for all keeps small gradients (1e-7 and less) from vanishing in fp16; a power of two rounds
nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from ps.errors import InvalidArgument
from ps.nn.dense.config import ValueKind

ALL, BITMAP, GAPS8, GAPS16 = range(4)
HEADER_BYTES = 6
_RUN = {GAPS8: 255, GAPS16: 65_535}
_WIDTH = {"fp32": 4, "fp16": 2}

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("ps.nn.dense writes tensors as they lie in memory, which must be little-endian")


@dataclass(frozen=True)
class Packed:
    """The bytes that are sent, and the values as the other ranks will read them."""

    payload: torch.Tensor
    """uint8 [bytes]."""
    values_k: torch.Tensor
    """float32 [k], after rounding."""
    position_bytes: int
    value_bytes: int


def pack(positions_k: torch.Tensor, values_k: torch.Tensor, n: int, kind: ValueKind) -> Packed:
    """Returns the bytes of positions, int64 [k] ascending in [0, n), and of their values, float32 [k]."""
    where, position_bytes = _pack_positions(positions_k, n)
    exponent, value_bytes = _pack_values(values_k, kind)
    header = bytes([where]) + exponent.to_bytes(1, "little", signed=True) + len(values_k).to_bytes(4, "little")
    header_bytes = torch.tensor(list(header), dtype=torch.uint8, device=values_k.device)
    return Packed(
        torch.cat([header_bytes, position_bytes, value_bytes]),
        _unpack_values(value_bytes, exponent, kind),
        len(position_bytes),
        len(value_bytes),
    )


def unpack(payload: torch.Tensor, n: int, kind: ValueKind) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the positions, int64 [k] ascending, and values, float32 [k], of bytes. Raises `InvalidArgument` for bytes
    that `pack` did not write."""
    if len(payload) < HEADER_BYTES:
        raise InvalidArgument(f"a payload of {len(payload)} bytes: the header alone has {HEADER_BYTES}")
    head = bytes(payload[:HEADER_BYTES].tolist())
    where, exponent, k = head[0], int.from_bytes(head[1:2], "little", signed=True), int.from_bytes(head[2:], "little")
    split = len(payload) - _WIDTH[kind] * k
    if split < HEADER_BYTES or where > GAPS16:
        raise InvalidArgument(
            f"a payload of {len(payload)} bytes, kind {where}, {k} values {kind}: "
            "not written by ps.nn.dense; all ranks need the same version"
        )
    positions_k = _unpack_positions(payload[HEADER_BYTES:split], where, n)
    if len(positions_k) != k or (k and int(positions_k[-1]) >= n):
        raise InvalidArgument(f"{len(positions_k)} positions for {k} values of {n} elements: ranks differ in settings?")
    return positions_k, _unpack_values(payload[split:], exponent, kind)


def _pack_positions(positions_k: torch.Tensor, n: int) -> tuple[int, torch.Tensor]:
    k = len(positions_k)
    if k == n:
        return ALL, positions_k.new_empty(0, dtype=torch.uint8)
    gaps_k = torch.diff(positions_k, prepend=positions_k.new_full((1,), -1)) - 1
    sizes = {
        BITMAP: (n + 7) // 8,
        GAPS8: k + int((gaps_k // _RUN[GAPS8]).sum()),
        GAPS16: 2 * (k + int((gaps_k // _RUN[GAPS16]).sum())),
    }
    where = min(sizes, key=lambda kind: (sizes[kind], kind))
    return where, _bitmap(positions_k, n) if where == BITMAP else _gaps(gaps_k, where)


def _unpack_positions(data: torch.Tensor, where: int, n: int) -> torch.Tensor:
    if where == ALL:
        if len(data):
            raise InvalidArgument(f"all {n} elements, and yet {len(data)} bytes of positions")
        return torch.arange(n, device=data.device)
    if where == BITMAP:
        bits = (data.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device=data.device)) & 1
        return bits.flatten().nonzero().squeeze(1)
    if where == GAPS16 and len(data) % 2:
        raise InvalidArgument(f"gaps in words of 2 bytes, but {len(data)} bytes of them")
    words = data.long() if where == GAPS8 else data[0::2].long() + 256 * data[1::2].long()
    ends_k = (words != _RUN[where]).nonzero().squeeze(1)
    return words.cumsum(0)[ends_k] + torch.arange(len(ends_k), device=data.device)


def _bitmap(positions_k: torch.Tensor, n: int) -> torch.Tensor:
    bits = torch.zeros((n + 7) // 8 * 8, dtype=torch.uint8, device=positions_k.device)
    bits[positions_k] = 1
    weights_8 = 1 << torch.arange(8, dtype=torch.uint8, device=positions_k.device)
    return (bits.view(-1, 8) * weights_8).sum(1, dtype=torch.uint8)


def _gaps(gaps_k: torch.Tensor, where: int) -> torch.Tensor:
    run = _RUN[where]
    ends_k = (gaps_k // run + 1).cumsum(0) - 1
    words = gaps_k.new_full((int(ends_k[-1]) + 1 if len(ends_k) else 0,), run)
    words[ends_k] = gaps_k % run
    if where == GAPS8:
        return words.to(torch.uint8)
    return torch.stack([words & 255, words >> 8], dim=1).to(torch.uint8).flatten()


def _pack_values(values_k: torch.Tensor, kind: ValueKind) -> tuple[int, torch.Tensor]:
    if not len(values_k):  # may have stride 0, which cannot be viewed as bytes
        return 0, values_k.new_empty(0, dtype=torch.uint8)
    if kind == "fp32":
        return 0, values_k.contiguous().view(torch.uint8)
    finite = values_k[values_k.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    exponent = 15 - int(torch.frexp(torch.tensor(largest)).exponent) if largest else 0
    exponent = max(-126, min(126, exponent))  # so that its inverse is a float32 too
    return exponent, (values_k * 2.0**exponent).half().view(torch.uint8)


def _unpack_values(data: torch.Tensor, exponent: int, kind: ValueKind) -> torch.Tensor:
    aligned = data.clone()  # a view as wider numbers must begin at a multiple of their width
    if kind == "fp32":
        return aligned.view(torch.float32)
    return aligned.view(torch.float16).float() * 2.0**-exponent
