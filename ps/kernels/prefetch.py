"""The processor's prefetch instruction, for kernels that read rows at random.

A row is a cache miss of about 100 ns, and the work on it is too long for the processor to look past it to the next one.
So the kernels ask for row i + AHEAD while they work on row i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ps.kernels.kernel import helper

AHEAD = 8
"""Rows asked for in advance: enough to cover the latency, few enough not to be evicted again before their turn."""

LINE_FLOATS, LINE_HALVES = 16, 32
"""float32, and 16-bit items, in a cache line."""


@intrinsic
def prefetch(typing_context: Any, array: Any, item: Any) -> Any:
    """prefetch(array, item): asks for the cache line of the item'th element, counted flat. Never faults."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        int32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, int32, int32, int32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for_reading, keep, data_cache = int32(0), int32(3), int32(1)
        builder.call(function, [address, for_reading, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@helper()
def prefetch_row(rows_SW: npt.NDArray[np.float32], slots_N: npt.NDArray[np.int64], i: int, width: int) -> None:
    """Asks for the first `width` floats of the row that is AHEAD of position i."""
    if i + AHEAD < len(slots_N):
        slot = slots_N[i + AHEAD]
        if slot >= 0:
            first = slot * rows_SW.shape[1]
            for j in range(0, width, LINE_FLOATS):
                prefetch(rows_SW, first + j)
            prefetch(rows_SW, first + width - 1)  # rows start anywhere in a line: the last floats may lie in one more


@helper()
def prefetch_half_row(half_SW: npt.NDArray[np.uint16], slots_N: npt.NDArray[np.int64], i: int, items: int) -> None:
    """Prefetches the first `items` of a row of 16-bit items, AHEAD slots before it is needed."""
    if i + AHEAD < len(slots_N):
        slot = slots_N[i + AHEAD]
        if slot >= 0:
            first = slot * half_SW.shape[1]
            for j in range(0, items, LINE_HALVES):
                prefetch(half_SW, first + j)
            prefetch(half_SW, first + items - 1)
