"""Words of 8 and 4 bytes at any place of a byte array: rows on disk are packed, and numpy's views must be aligned.

Little-endian, as every machine is that numba compiles for. Nothing is checked: the caller stays within the array.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def load64(typing_context: Any, array: Any, at: Any) -> Any:
    """load64(array, at): the 8 bytes from the at'th on, counted flat, as uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args, 64), align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def load32(typing_context: Any, array: Any, at: Any) -> Any:
    """load32(array, at): the 4 bytes from the at'th on, counted flat, as uint32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args, 32), align=1)

    return types.uint32(array, types.intp), generate


@intrinsic
def store32(typing_context: Any, array: Any, at: Any, word: Any) -> Any:
    """store32(array, at, word): the 4 bytes from the at'th on = word, a uint32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args, 32), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint32), generate


@intrinsic
def store64(typing_context: Any, array: Any, at: Any, word: Any) -> Any:
    """store64(array, at, word): the 8 bytes from the at'th on = word, a uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args, 64), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), generate


def _address(context: Any, builder: Any, signature: Any, args: Any, bits: int) -> Any:
    """Where in memory the at'th byte is, as the address of an integer of so many bits."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(bits).as_pointer())
