"""What psctl prints when something is wrong: all of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ps
from ps import cli
from tests.conftest import StartServer
from tests.waiting import until

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


def test_status_shows_tiers_and_what_is_wrong_with_a_disk(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(disk={"path": tmp_path})
    ids = np.arange(200)
    with ps.connect(server.address) as client:
        client.create_table(ps.TableConfig(name="clicks", dim=4))
        client.push("clicks", ids, np.ones((200, 4), np.float32))
        until(lambda: client.stats()["shards"][0]["tables"]["clicks"]["rows"]["disk"] == 100)
    well = CliRunner().invoke(cli.app, ["status", "--address", server.address])
    assert well.exit_code == 0
    assert re.search(r"(?m)^clicks +hot +100 ", well.stdout)
    assert re.search(r"(?m)^clicks +disk +100 +[1-9]", well.stdout)
    assert "1 SERVING" in well.stdout
    server.shard.core.disk_health.refused(ps.DiskFull("no room"))
    ill = CliRunner().invoke(cli.app, ["status", "--address", server.address])
    assert ill.exit_code == 0, "it goes on"
    assert "shard 0 is DEGRADED: rows cannot go down to disk: no room" in ill.stdout
