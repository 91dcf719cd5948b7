"""The programs of the README run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.ray
@pytest.mark.parametrize("number", range(4))
def test_program(number: int, tmp_path: Path) -> None:
    assert len(PROGRAMS) == 4
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[number])
    run = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr
