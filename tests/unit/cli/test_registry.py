"""A command of psctl is one file in ps/cli/commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ps.cli import commands
from ps.cli.registry import add_commands


@pytest.fixture
def with_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], typer.Typer]]:
    """Makes a psctl with one file more beside its commands."""

    def make(name: str, text: str) -> typer.Typer:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
        psctl = typer.Typer()
        add_commands(psctl)
        return psctl

    yield make
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"{commands.__name__}.{file.stem}", None)


def test_a_file_in_the_folder_is_a_command_at_its_place(with_file: Callable[[str, str], typer.Typer]) -> None:
    psctl = with_file("greet", "PLACE = 35\ndef greet(name: str) -> None:\n    print('hello', name)\n")
    assert CliRunner().invoke(psctl, ["greet", "you"]).output == "hello you\n"
    screen = CliRunner().invoke(psctl, ["--help"]).output
    places = [screen.index(f"│ {name} ") for name in ("status", "greet", "top", "tables")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("def part() -> None: ...", "part lacks PLACE, a whole number"),
        ("PLACE = 1\ndef other() -> None: ...", "part has neither a function 'part', the command, nor a typer.Typer"),
    ],
)
def test_a_file_that_is_no_command_says_what_it_lacks(
    with_file: Callable[[str, str], typer.Typer], text: str, lacks: str
) -> None:
    with pytest.raises(TypeError, match=lacks):
        with_file("part", text)
