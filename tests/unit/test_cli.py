"""What psctl prints when something is wrong: all of it."""

from __future__ import annotations

import pytest

import ps
from ps import cli

MESSAGE = "no route [127.0.0.1:5000] [localhost:5000] [red]x[/red] [/] [/home]"


@pytest.mark.parametrize("kind", [ps.Unavailable, ps.StateLost])
def test_an_error_is_one_line_with_its_class_and_every_bracket(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[ps.PsError]
) -> None:
    def fail() -> None:
        raise kind(MESSAGE)

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == f"{kind.__name__}: {MESSAGE}\n"
    assert printed.out == ""
