"""`ps.runtime` is the only door to time and to chance: no other module of `ps` asks for them itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = {"time", "random", "secrets", "uuid"}
CALLS = {
    *("os.urandom", "os.getrandom", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
SEEDED = {"default_rng", "Generator", "Philox", "PCG64", "SeedSequence"}
"""Of numpy.random: sources that are given what they draw from. All else there draws from one source of the process."""


def dotted(node: ast.expr) -> str:
    """The name that an expression spells, numpy's in full; empty where it is no name."""
    if isinstance(node, ast.Name):
        return "numpy" if node.id == "np" else node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def asked_by(node: ast.AST) -> list[str]:
    """What one node asks of time or chance by itself."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names if is_imported_door(name.name)]
    if isinstance(node, ast.ImportFrom) and not node.level:
        names = [f"{node.module}.{name.name}" for name in node.names]
        return [name for name in names if is_imported_door(name)]
    if isinstance(node, ast.Attribute):
        name = dotted(node)
        room, _, last = name.rpartition(".")
        return [name] if name in CALLS or (room == "numpy.random" and last not in SEEDED) else []
    if isinstance(node, ast.Call) and (name := dotted(node.func)).startswith("numpy.random."):
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        seeded = given and not (isinstance(given[0], ast.Constant) and given[0].value is None)
        return [] if seeded else [f"{name} without a seed"]
    return []


def is_imported_door(name: str) -> bool:
    """Whether a full name leads to time or chance."""
    return name.split(".")[0] in MODULES or name.startswith("numpy.random") or name in CALLS


def asked_for(source: str) -> list[str]:
    """What a module asks of time or chance by itself, with the lines."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt | ast.expr)]
    return [f"line {node.lineno}: {name}" for node in nodes for name in asked_by(node)]


def test_only_the_runtime_asks_for_time_and_chance() -> None:
    found = {
        str(path.relative_to(ROOT)): asked
        for path in (ROOT / "ps").rglob("*.py")
        if not path.is_relative_to(ROOT / "ps" / "runtime")
        if (asked := asked_for(path.read_text(encoding="utf-8")))
    }
    assert not found, "take a Clock or an Entropy of ps.runtime as an argument, or read SYSTEM_CLOCK to measure"


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import random as chance",
        "from secrets import token_hex",
        "def late():\n    import uuid",
        "import os\nos.urandom(8)",
        "from os import urandom",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now()",
        "from numpy.random import rand",
        "import numpy.random",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.seed(3)",
        "import numpy as np\nnp.random.default_rng()",
        "import numpy as np\nnp.random.default_rng(None)",
        "import numpy as np\nnp.random.default_rng(seed=None)",
        "import numpy\nnumpy.random.Philox()",
    ],
)
def test_each_way_of_asking_is_found(source: str) -> None:
    assert asked_for(source)


@pytest.mark.parametrize(
    "source",
    [
        "from ps.runtime.clock import Clock\ndef now(clock: Clock) -> float:\n    return clock.monotonic()",
        "import numpy as np\nnp.random.Generator(np.random.Philox(key=[1, 2])).random()",
        "import numpy as np\nnp.random.default_rng((7, 1))",
        "from datetime import UTC, datetime\ndatetime.fromtimestamp(1.0, UTC)",
        "from .time import late",
    ],
)
def test_what_was_given_may_be_used(source: str) -> None:
    assert not asked_for(source)
