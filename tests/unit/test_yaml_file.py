"""YAML files: what is wrong with one is a line, and its encoding does not depend on the locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ps
from ps.cluster.ray.deployment import Deployment
from ps.config import yaml_file


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a: [1\nb: 2\n", "2:2"),
        (b"max_ids: 5\n  metrics: false\n", "2:10"),
        (b"\tmetrics: false\n", "1:1"),
        (b"a: 1\nb: f\xfcr\n", "2:5"),
        (b"a: 1\nb: \x07\n", "2:4"),
        (b"a: &b [*c]\n", "1:8"),
        (b"a: !!python/object:os.system x\n", "1:4"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(content: bytes, place: str, tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_bytes(content)
    for read in (ps.ServiceConfig.from_yaml, Deployment.from_yaml):
        with pytest.raises(ps.ConfigError) as raised:
            read(path)
        assert str(raised.value).startswith(f"{path}:{place}: no YAML: ")
        assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(ps.NotFound, match="cannot be read: "):
            ps.ServiceConfig.from_yaml(path)


PLAIN = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""The environment of a process that takes text for ASCII where nobody says otherwise."""


def in_plain(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *arguments], env=PLAIN, capture_output=True, timeout=60)


def test_a_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """Read there, handed on as JSON and read again, as the process that keeps a service is."""
    path = tmp_path / "service.yaml"
    path.write_bytes("\ufeff# f\u00fcr alle\nwatching: {metrics: false}\ndisk: {path: /gr\u00f6\u00dfe}\n".encode())
    assert yaml_file.load(path) == {"watching": {"metrics": False}, "disk": {"path": "/gr\u00f6\u00dfe"}}
    run = in_plain(
        "-c",
        "from ps.cluster.ray.deployment import Deployment\n"
        f"read = Deployment.from_yaml({str(path)!r})\n"
        "assert Deployment.from_json(read.to_json()) == read\n"
        "print(ascii(str(read.service.disk.path)))",
    )
    assert run.stdout.decode().strip() == ascii("/gr\u00f6\u00dfe"), run.stderr


def test_what_is_wrong_with_a_file_is_said_where_its_letters_cannot_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_bytes("gr\u00f6\u00dfe: 3\n".encode())
    run = in_plain("-m", "ps.cli", "config", "check", str(path))
    assert run.returncode == 1
    assert rb"gr\xf6\xdfe: no such setting (got 3)" in run.stdout, run.stderr
