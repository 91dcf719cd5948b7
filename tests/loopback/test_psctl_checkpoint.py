"""psctl checkpoint and psctl restore, against shards that run and against folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ps
from ps.cli import app
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import block, contents, summing

IDS = np.arange(50)


def psctl(*arguments: object, typed: str | None = None) -> tuple[int, str, BaseException | None]:
    run = CliRunner().invoke(app, list(map(str, arguments)), input=typed)
    return run.exit_code, run.stdout, run.exception


def asked(*arguments: object) -> tuple[int, Any]:
    code, text, _ = psctl(*arguments, "--json")
    return code, json.loads(text)


@pytest.fixture
def service() -> Any:
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.push("t", IDS, block(IDS))
        yield cluster, client


def test_create_ls_verify_restore_and_rm(service: Any, tmp_path: Path) -> None:
    cluster, client = service
    code, made = asked("checkpoint", "create", tmp_path, "--address", cluster.address)
    assert code == 0
    client.push("t", IDS, block(IDS))
    code, text, _ = psctl("checkpoint", "create", tmp_path, "--full", "--address", cluster.address)
    assert code == 0
    first, second = made["name"], text.strip()
    found = contents(client, "t")

    code, listed = asked("checkpoint", "ls", tmp_path)
    assert [each["name"] for each in listed["checkpoints"]] == [first, second]
    assert listed["checkpoints"][1]["base"] is None
    assert listed["checkpoints"][0]["shards"] == 2
    code, text, _ = psctl("checkpoint", "ls", tmp_path)
    assert [line.split()[0] for line in text.splitlines()] == ["checkpoint", first, second]

    assert asked("checkpoint", "verify", tmp_path) == (0, {"name": second, "problems": []})
    assert psctl("checkpoint", "verify", tmp_path / first)[:2] == (0, f"{first} is whole\n")
    damaged = tmp_path / first / "shard-1" / "rows-0000"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    code, text, _ = psctl("checkpoint", "verify", tmp_path / first)
    assert code == 1
    assert str(damaged) in text

    with LoopbackCluster(2, QUIET) as new, ps.connect(new.address) as other:
        code, restored = asked("restore", tmp_path, "--address", new.address)
        assert (code, restored["name"], restored["exact"], len(restored["versions"])) == (0, second, True, 2)
        assert contents(other, "t") == found
        code, text, _ = psctl("restore", tmp_path, "--table", "t=u", "--values-only", "--address", new.address)
        assert code == 0
        assert "row by row" in text
        assert contents(other, "u") == found
        _, _, error = psctl("restore", tmp_path / first, "--table", "t=v", "--address", new.address)
        assert isinstance(error, ps.CheckpointCorrupt)
        assert str(damaged) in str(error)
        assert set(other.tables()) == {"t", "u"}, "what could not be filled is gone"

    code, text, _ = psctl("checkpoint", "rm", tmp_path / first, typed="n\n")
    assert code == 1
    assert len(asked("checkpoint", "ls", tmp_path)[1]["checkpoints"]) == 2
    code, text, _ = psctl("checkpoint", "rm", tmp_path / first, typed="y\n")
    assert code == 0
    assert asked("checkpoint", "rm", tmp_path / second, "--yes") == (0, {"removed": [second]})
    code, text, _ = psctl("checkpoint", "ls", tmp_path)
    assert (code, text) == (0, f"no checkpoints in {tmp_path}: psctl checkpoint create makes one\n")


def test_what_is_wrong_is_said(service: Any, tmp_path: Path) -> None:
    cluster, _ = service
    name = "20260101T000000Z-000001"
    for arguments, kind, says in (
        (["checkpoint", "create", "--address", cluster.address], ps.ConfigError, "checkpoint.path"),
        (["checkpoint", "verify", tmp_path], ps.NotFound, "no whole checkpoint"),
        (["checkpoint", "rm", tmp_path, "--yes"], ps.InvalidArgument, "give FOLDER/NAME"),
        (["checkpoint", "rm", tmp_path / name, "--yes"], ps.NotFound, "has no checkpoint"),
        (["restore", tmp_path, "--address", cluster.address], ps.NotFound, "psctl checkpoint ls"),
        (["restore", tmp_path, "--at", "3", "--address", cluster.address], ps.InvalidArgument, "pass log"),
    ):
        code, _, error = psctl(*arguments)
        assert code == 1
        assert type(error) is kind
        assert says in str(error)
    for wrong in (["--at", "yesterday"], ["--at", "0=1,1"], ["--table", "=x"], ["--table", "x="]):
        assert psctl("restore", tmp_path, *wrong, "--address", cluster.address)[0] == 2
    one = asked("checkpoint", "create", tmp_path, "--address", cluster.address)[1]["name"]
    asked("checkpoint", "create", tmp_path, "--address", cluster.address)
    _, _, error = psctl("checkpoint", "rm", tmp_path / one, "--yes")
    assert isinstance(error, ps.InvalidArgument)
    assert "remove that first" in str(error)
