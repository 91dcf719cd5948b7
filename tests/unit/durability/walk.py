"""Walks over every object of a shard, and finds the attributes that hold state and whether they are saved.

An attribute holds state where its value can change: an array, a container, and a scalar, unless nobody but constructors
assigns attributes of that name, and these never a literal, as a counter begins. Objects of the product are walked into.
Callables, classes and configurations are no state; of any other type `not_kept.py` must say why it is none.
"""

from __future__ import annotations

import ast
import collections
import functools
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

import ps
from ps.kept import Kept
from ps.runtime.memory import ReservedArray
from ps.shard import Shard
from ps.shard.state import kept
from tests.unit.durability.not_kept import UNDER_WAY

CONTAINERS = (dict, list, set, collections.deque)
ARRAYS = (np.ndarray, ReservedArray)
SCALARS = (bool, int, float, str, bytes, np.generic, type(None))
FIXED = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial),
    *(Path, BaseModel, np.dtype, frozenset),
)
ROOMS = ("shard", "table", "policy", "storage", "tensor_train", "kernels", "runtime", "optimizers")
CONSTRUCTORS = ("__init__", "__post_init__")
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete, ast.For, ast.With)


class Found(NamedTuple):
    """An attribute that holds state."""

    owner: str
    """The class."""
    name: str
    saved: bool


ANY = "*"
"""Stands for the class of an attribute that is assigned to something else than `self`."""


@dataclass
class Assigned:
    """Which attributes are assigned, (class, name), by whom."""

    by_constructors: set[tuple[str, str]] = field(default_factory=set)
    as_literals: set[tuple[str, str]] = field(default_factory=set)
    by_others: set[tuple[str, str]] = field(default_factory=set)

    def note(self, node: ast.AST, cls: str = ANY, constructing: bool = False) -> None:
        """Notes what a piece of source assigns."""
        if isinstance(node, ast.ClassDef):
            cls = node.name
        elif isinstance(node, ast.FunctionDef):
            constructing = node.name in CONSTRUCTORS
        elif isinstance(node, ASSIGNMENTS):
            for target in _targets(node):
                to_self = isinstance(target.value, ast.Name) and target.value.id == "self"
                key = (cls if to_self else ANY, target.attr)
                (self.by_constructors if constructing and to_self else self.by_others).add(key)
                if _is_literal(getattr(node, "value", None)):
                    self.as_literals.add(key)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler):  # an expression assigns no attribute
                self.note(child, cls, constructing)

    def only_given(self, classes: Iterable[str], name: str) -> bool:
        """Whether the attribute of an object is what constructors are given, or compute, and stays so."""
        keys = {(cls, name) for cls in classes}
        return bool(keys & self.by_constructors) and not keys & self.as_literals and not self.replaced(classes, name)

    def replaced(self, classes: Iterable[str], name: str) -> bool:
        """Whether anybody but constructors assigns the attribute of an object."""
        return not {(cls, name) for cls in (*classes, ANY)}.isdisjoint(self.by_others)


def _targets(node: Any) -> list[ast.Attribute]:
    whole = getattr(node, "targets", None) or [getattr(node, "target", None)]
    whole += [item.optional_vars for item in getattr(node, "items", ())]
    parts = [each for part in whole if part for each in ast.walk(part) if isinstance(each, ast.Attribute)]
    return [each for each in parts if not isinstance(each.ctx, ast.Load)]


def _is_literal(value: ast.AST | None) -> bool:
    return isinstance(value.operand if isinstance(value, ast.UnaryOp) else value, ast.Constant)


@functools.cache
def assigned() -> Assigned:
    """What the source of the shard and of all below it assigns."""
    found = Assigned()
    for room in ROOMS:
        for path in (Path(ps.__file__).parent / room).rglob("*.py"):
            found.note(ast.parse(path.read_text(encoding="utf-8")))
    return found


def walk(shard: Shard) -> Iterator[Found]:
    """Every attribute that holds state, of all objects of the product that a shard leads to."""
    saved, seen = names_saved(shard), set()
    waiting: list[object] = [shard]
    while waiting:
        owner = waiting.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in attributes(owner):
            is_saved = name.lstrip("_") in saved.get(id(owner), ())
            if holds_state(owner, name, value):
                yield Found(type(owner).__name__, name, is_saved)
            if not (is_saved and isinstance(value, CONTAINERS)):  # all that is in it is saved
                waiting += objects_in(value)


def names_saved(shard: Shard) -> dict[int, set[str]]:
    """The attributes that are saved, by the `id` of their object."""
    found: dict[int, set[str]] = {}
    lists = [kept(shard.core), *(table.state.parts for table in shard.tables.values())]
    waiting: list[Kept] = [part for parts in lists for part in parts.values()]
    while waiting:
        part = waiting.pop()
        names = found[id(part)] = {name.partition(".")[0] for name in part.state()}
        inner = [value for name, value in attributes(part) if name.lstrip("_") in names]
        waiting += [each for each in inner if hasattr(each, "restore")]
    return found


def attributes(owner: object) -> list[tuple[str, Any]]:
    """The attributes of an object, those in slots too."""
    slots = [name for cls in type(owner).__mro__ for name in cls.__dict__.get("__slots__", ())]
    return [(name, getattr(owner, name)) for name in {**dict.fromkeys(slots), **getattr(owner, "__dict__", {})}]


def holds_state(owner: object, name: str, value: Any) -> bool:
    """Whether an attribute holds state by itself, beside that of the object which it may be."""
    classes = [cls.__name__ for cls in type(owner).__mro__]
    if isinstance(value, SCALARS):
        frozen = isinstance(owner, tuple) or (is_dataclass(owner) and owner.__dataclass_params__.frozen)  # type: ignore[attr-defined]
        return not (frozen or assigned().only_given(classes, name))
    if isinstance(value, tuple) and not of_product(value):
        return any(holds_state(owner, name, item) for item in value if not isinstance(item, SCALARS))
    fixed = of_product(value) or isinstance(value, FIXED)
    return not fixed or assigned().replaced(classes, name)


def objects_in(value: Any) -> list[object]:
    """The objects of the product that a value is, or has in it."""
    if isinstance(value, ARRAYS):
        return []
    if of_product(value):
        return [value]
    if isinstance(value, dict):
        return [inner for pair in value.items() for item in pair for inner in objects_in(item)]
    items = value if isinstance(value, list | tuple | set | collections.deque) else ()
    return [inner for item in items for inner in objects_in(item)]


def of_product(value: object) -> bool:
    """Whether this is an object that may have attributes of its own."""
    cls = type(value)
    looked_into = cls.__name__ not in UNDER_WAY and not isinstance(value, (*ARRAYS, *FIXED))
    return cls.__module__.startswith("ps.") and looked_into
