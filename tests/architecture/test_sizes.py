"""No class of the product has more than 20 public methods, and every function is shorter than 60 lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_PUBLIC_METHODS = 20
MOST_LINES = 59
"""Of a function, from `def` to its last line: signature, docstring and comments count, decorators do not."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources() -> Iterator[tuple[str, str]]:
    """Yields path and text of each file of the product that somebody wrote: what is in ps/v1 is generated."""
    for room in ("ps", "worker"):
        for file in sorted((ROOT / room).rglob("*.py")):
            if ROOT / "ps" / "v1" not in file.parents:
                yield str(file.relative_to(ROOT)), file.read_text()


def public_methods(source: str) -> dict[str, int]:
    """Returns how many public methods each class defines; a property counts once, with its setter."""
    return {
        node.name: len(
            {part.name for part in node.body if isinstance(part, FUNCTIONS) and not part.name.startswith("_")}
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def lines(source: str) -> dict[str, int]:
    """Returns how many lines each function has, by its name and first line."""
    return {
        f"{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, FUNCTIONS)
    }


def test_the_faces_of_rooms_are_short() -> None:
    """Whoever reads the project begins with these."""
    faces = [
        *("ps/shard/shard.py", "ps/table/table.py", "ps/storage/residence/store.py", "ps/client/client.py"),
        *("ps/nn/embedding/collection.py", "ps/server/handlers/reads.py"),
        *(str(file.relative_to(ROOT)) for file in (ROOT / "ps" / "config").glob("*.py")),
    ]
    assert {face: n for face in faces if (n := len((ROOT / face).read_text().splitlines())) >= 200} == {}


def test_methods_are_counted() -> None:
    text = """
class A:
    field = 1
    def __len__(self): ...
    def _own(self): ...
    def a(self): ...
    async def b(self): ...
    @property
    def c(self): ...
    @c.setter
    def c(self, value): ...
    class B:
        def a(self): ...
"""
    assert public_methods(text) == {"A": 3, "B": 1}


def test_a_class_has_at_most_20_public_methods() -> None:
    found = {f"{path}: {name}": n for path, text in sources() for name, n in public_methods(text).items()}
    assert len(found) > 300
    assert {name: n for name, n in found.items() if n > MOST_PUBLIC_METHODS} == {}


def test_lines_are_counted() -> None:
    text = """
@decorator
def a(
    x,
):
    '''One line.'''

    # another
    async def b(): ...
    return b
"""
    assert lines(text) == {"3 a": 8, "9 b": 1}


def test_a_function_is_shorter_than_60_lines() -> None:
    found = {f"{path}:{name}": n for path, text in sources() for name, n in lines(text).items()}
    assert len(found) > 2000
    assert {name: n for name, n in found.items() if n > MOST_LINES} == {}
