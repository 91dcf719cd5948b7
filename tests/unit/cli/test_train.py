"""psctl train: the reference trainer's own command, where there is one."""

from __future__ import annotations

import subprocess
import sys

import pytest


def psctl(*arguments: str, absent: str = "") -> subprocess.CompletedProcess[str]:
    """Runs psctl in a fresh interpreter, in which the module `absent` cannot be imported."""
    script = f"import sys; sys.modules.update(dict.fromkeys({absent.split()})); from ps.cli import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)


def test_help_is_the_trainers() -> None:
    run = psctl("train", "--help")
    assert run.returncode == 0, run.stderr
    assert "psctl train" in run.stdout
    assert all(option in run.stdout for option in ("--data", "--service", "--local", "--mode"))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("train --data flights", 1, "InvalidArgument: say where the rows live: --service HOST:PORT, or --local N"),
        ("train --servce h:1", 2, "No such option: --servce"),
    ],
)
def test_its_options_are_the_trainers(arguments: str, status: int, words: str) -> None:
    run = psctl(*arguments.split())
    assert run.returncode == status
    assert words in " ".join(run.stderr.split())


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("worker", "NotFound: the reference trainer, the package `worker`, is not installed"),
        ("torch", "Unavailable: psctl train: ps.nn needs torch"),
    ],
)
def test_what_is_missing_is_one_line(absent: str, words: str) -> None:
    run = psctl("train", "--data", "flights", absent=absent)
    assert run.returncode == 1
    assert words in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
