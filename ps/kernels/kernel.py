"""How a kernel is declared. A decorator compiles it, keeps it (`ps.kernels.cache`) and notes it for the warm-up.

The types that the warm-up compiles a kernel for are read from its declaration: the dtype of an array from its
annotation, the number of its dimensions from its name (`grads_ND` has two, a name without a shape one). Arrays are
C-contiguous. numba compiles a kernel again for a read-only array, such as one that came off the wire, so the decorator
says which arguments may be one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numba
import numpy as np
from numba import types
from numba.core.dispatcher import Dispatcher

from ps.kernels import cache

cache.register()

SCALARS = {int: types.int64, float: types.float64, bool: types.boolean, NoneType: types.none}
"""numba's types of the arguments that are numbers of Python."""


@dataclass(frozen=True)
class Kernel:
    """One kernel that Python calls."""

    dispatcher: Dispatcher
    either: tuple[str, ...]
    read_only: tuple[str, ...]
    strided: tuple[str, ...]

    def signatures(self) -> list[tuple[types.Type, ...]]:
        """Argument types for each way in which it is called."""
        hints = get_type_hints(self.dispatcher.py_func)
        hints.pop("return", None)
        return list(itertools.product(*(self._types(name, hint) for name, hint in hints.items())))

    def compile(self) -> None:
        """Compiles, or loads, the kernel for all its signatures."""
        for signature in self.signatures():
            self.dispatcher.compile(signature)

    def _types(self, name: str, hint: Any) -> list[types.Type]:
        if get_origin(hint) in (Union, UnionType):
            return [one for part in get_args(hint) for one in self._types(name, part)]
        if get_origin(hint) is not np.ndarray:
            return [_plain(hint)]
        layout = "A" if name in self.strided else "C"
        read_only = [True] if name in self.read_only else [False, True] if name in self.either else [False]
        return [_array(name, hint, layout, one) for one in read_only]


WARMED: list[Kernel] = []
"""The kernels that shards run, in the order in which their files were imported."""


def kernel(
    *,
    either: str | Sequence[str] = (),
    read_only: str | Sequence[str] = (),
    strided: str | Sequence[str] = (),
    error_model: str = "python",
    warm: bool = True,
) -> Callable[[Callable[..., Any]], Any]:
    """Declares a kernel that Python calls.

    either: arguments that are arrays of the process's own in one call and read-only ones in another. read_only: those
    that are always read-only. strided: those that may be a part of wider rows. error_model: "numpy" divides by zero as
    IEEE 754 does, and lets loops with divisions vectorise. warm=False: no shard runs it, so none waits for it.
    """

    def declare(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(function, cache=True, nogil=True, error_model=error_model)
        if warm:
            WARMED.append(Kernel(dispatcher, *map(_names, (either, read_only, strided))))
        return dispatcher

    return declare


def helper(*, inline: bool = True, error_model: str = "python") -> Callable[[Callable[..., Any]], Any]:
    """Declares a function that kernels call. It is compiled with each of them; `inline` puts it into their loops."""

    def declare(function: Callable[..., Any]) -> Any:
        options = {"cache": True, "nogil": True, "error_model": error_model}
        return numba.njit(function, inline="always" if inline else "never", **options)

    return declare


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _plain(hint: Any) -> types.Type:
    """The type of an argument that is no array: a number, a tuple, or a named tuple of arrays."""
    if hint in SCALARS:
        return SCALARS[hint]
    if get_origin(hint) is tuple:
        return types.Tuple([_plain(part) for part in get_args(hint)])
    if isinstance(hint, type) and issubclass(hint, tuple):
        fields = get_type_hints(hint)
        return types.NamedTuple([_array(name, field, "C", False) for name, field in fields.items()], hint)
    return numba.from_dtype(np.dtype(hint))


def _array(name: str, hint: Any, layout: str, read_only: bool) -> types.Array:
    """The type of an array. The hint has its element (float32 where it leaves that open), the name its dimensions."""
    (element,) = get_args(get_args(hint)[1])
    shape = re.search(r"_([A-Z0-9]+)$", name)
    dtype = np.float32 if element is Any else element
    return types.Array(numba.from_dtype(np.dtype(dtype)), len(shape[1]) if shape else 1, layout, readonly=read_only)
