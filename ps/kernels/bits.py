"""Instructions on single bits that numba has no name for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def float_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as int32. Through a view of an array it takes a pass of its own, and twice the time."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Which bit is the lowest that is set, of a uint64 that has one; 64 if it has none."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typing_context: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def nonzero64(typing_context: Any, array: Any, at: Any) -> Any:
    """nonzero64(array, at): a bit for each of 64 float32 from the at'th on, whether it is neither 0 nor -0. Nothing is
    checked. One comparison of vectors, which a loop over bits is not made into."""
    lanes = ir.VectorType(ir.IntType(32), 64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer())
        bits = builder.load(address, align=4)
        magnitudes = builder.and_(bits, ir.Constant(lanes, [0x7FFFFFFF] * 64))
        flags = builder.icmp_unsigned("!=", magnitudes, ir.Constant(lanes, [0] * 64))
        return builder.bitcast(flags, ir.IntType(64))

    return types.uint64(array, types.intp), generate
