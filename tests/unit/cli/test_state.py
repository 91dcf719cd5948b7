"""What psctl keeps of a service that it started, and what it says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ps
from ps.cli import app
from ps.cli.commands.up import hint
from ps.cluster.ray import home as ray_home
from ps.cluster.ray import local


def test_a_home_that_cannot_be_written_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(ps.InvalidArgument, match=r"/proc/nowhere/\.local/state/embedding-ps.*set XDG_STATE_HOME"):
        local.make_folder()
    run = CliRunner().invoke(app, ["up"])
    assert isinstance(run.exception, ps.InvalidArgument), "before anything starts"


def test_the_hint_names_the_service() -> None:
    assert "psctl status shows it, psctl down ends it" in hint(local.State("default", "h:1", 1))
    assert "psctl status --name X shows it, psctl down --name X ends it" in hint(local.State("X", "h:1", 1))
    assert 'ps.connect("[::1]:1")' in hint(local.State("X", "[::1]:1", 1))


def test_ray_is_given_a_temporary_directory_whose_sockets_have_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    assert ray_home.own() == {}
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    for unusable in (str(deep), "/proc/nowhere"):
        monkeypatch.setenv("TMPDIR", unusable)
        assert ray_home.own() == {"_temp_dir": "/tmp/ray"}
        assert re.search(f"cannot use the temporary directory {unusable}.*it uses /tmp; set RAY_TMPDIR", caplog.text)
    monkeypatch.setattr(ray_home, "SHORT", (str(deep),))
    with pytest.raises(ps.InvalidArgument, match="set RAY_TMPDIR"):
        ray_home.own()


def test_without_a_home_to_write_ray_has_a_token_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back
    ray_home.own()
    assert re.fullmatch(r"[0-9a-f]{64}", ray_home.os.environ["RAY_AUTH_TOKEN"])


@pytest.mark.parametrize(("token", "mode"), [(True, "token"), (False, "None")])
def test_the_token_at_hand_is_taken_to_a_cluster_whose_head_may_ask_for_it(
    token: bool, mode: str, tmp_path: Path
) -> None:
    """As `ray start --head` does, which asks for it where it finds one; a process of its own, since Ray looks once."""
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    code = "import os; from ps.cluster.ray import home; home.take_token(); print(os.environ.get('RAY_AUTH_MODE'))"
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=100
    )
    assert run.stdout.split() == [mode], run.stderr
