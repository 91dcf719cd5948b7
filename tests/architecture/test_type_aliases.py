"""A name of a type means one type, wherever it stands: `Counts` are not uint32 in one file and int64 in the next."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKERS = {"NDArray", "Callable", "Annotated", "Literal", "tuple", "list", "dict", "Sequence", "Mapping", "Iterator"}


def is_type(value: ast.expr) -> bool:
    """Whether an expression makes a type: NDArray[...], Callable[...], a | b of such."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return is_type(value.left) or is_type(value.right) or isinstance(value.left, ast.Name)
    maker = value.value if isinstance(value, ast.Subscript) else None
    return (isinstance(maker, ast.Name) and maker.id in MAKERS) or (
        isinstance(maker, ast.Attribute) and maker.attr in MAKERS
    )


def declared(source: str) -> list[str]:
    """Names of the types that a file declares at its top level, and their lines."""
    return [
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and is_type(node.value)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper()
    ]


def test_declarations_are_found() -> None:
    text = (
        "A1a = npt.NDArray[np.int64]\nBc = int | tuple[int]\nC = 3\nDe = Callable[[], None]\nFLAGS = 1 | 2\nEf = x[0]"
    )
    assert declared(text) == ["A1a", "Bc", "De"]


def test_a_name_of_a_type_is_declared_once() -> None:
    files = defaultdict(list)
    for room in ("ps", "worker", "benchmarks"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for name in declared(file.read_text()):
                files[name].append(str(file.relative_to(ROOT)))
    assert len(files) > 40
    assert {name: where for name, where in files.items() if len(where) > 1} == {}
