"""The programs of the README and of the guides run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.documents import GUIDES, ROOT

PROGRAMS = [
    (document, number, text)
    for document in GUIDES
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL))
]


@pytest.mark.ray
@pytest.mark.parametrize("text", [pytest.param(text, id=f"{where}-{n}") for where, n, text in PROGRAMS])
def test_program(text: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(text)
    run = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


def test_none_is_overlooked() -> None:
    found = Counter(document for document, _, _ in PROGRAMS)
    assert found == {
        "README.md": 2,
        "docs/training.md": 3,
        "docs/tables.md": 1,
        "docs/communication.md": 1,
        "docs/tensor_train.md": 1,
    }
