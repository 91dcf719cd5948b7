"""The files that kernels are compiled from, and digests that change when one of them does.

Helpers are compiled into the kernels that use them, so a kernel depends on its own file and on those that it imports.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numba

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "optimizers")
"""Folders of ROOT that have kernels."""
PACKAGE = "ps."
UPDATES = "kernels/updates/optim.py"
"""The file that compiles the updates of the optimizers, with helpers that it imports."""


def is_ours(file: Path) -> bool:
    """Whether a file may have kernels of this package."""
    return any(file.is_relative_to(ROOT / room) for room in ROOMS)


def room_of(file: Path) -> str:
    """The folder of a file as part of a file name: files of two folders may have one name."""
    return "-".join(file.relative_to(ROOT).parent.parts)


@cache
def stamp(file: Path) -> bytes:
    """A digest of a file of kernels, and of those that it imports."""
    digest = hashlib.sha256()
    for source in sorted(_needed(file)):
        digest.update(source.read_bytes())
    return digest.digest()


def version() -> str:
    """The version of Python, as part of a file name: compiled kernels of two versions lie side by side."""
    return f"py{sys.version_info[0]}{sys.version_info[1]}"


@cache
def release() -> str:
    """A digest of all that decides what is compiled: sources, compiler, CPU."""
    digest = hashlib.sha256()
    for source in sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        if "reference" not in source.parts:
            digest.update(str(source.relative_to(ROOT)).encode() + source.read_bytes())
    cpu = numba.config.CPU_NAME or llvm.get_host_cpu_name(), numba.config.CPU_FEATURES
    features = llvm.get_host_cpu_features().flatten()
    digest.update(repr((numba.__version__, llvm.llvm_version_info, cpu, features)).encode())
    return digest.hexdigest()[:16]


def _needed(file: Path) -> set[Path]:
    """The file, all files of kernels that it imports, and those that they import."""
    found: set[Path] = set()
    waiting = [file, ROOT / UPDATES] if file.is_relative_to(ROOT / "optimizers") else [file]
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.add(source)
            waiting += _imports(source)
    return found


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """The files of kernels that a file imports: `from ps.kernels import x`, and `from ps.kernels.x import f`."""
    names = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    found = [ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if name.startswith(PACKAGE)]
    return tuple(path for path in found if is_ours(path) and path.exists())
