"""psctl config: what it shows can be loaded, and what it finds is all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import ps
from ps.cli import app
from ps.cli.commands.config import _models
from ps.cli.config_file import check, tables_of
from ps.cli.config_text import documented

REQUIRED: dict[str, dict[str, Any]] = {
    "table": {"name": "t", "dim": 4},
    "count_threshold": {"min_count": 2},
    "probability": {"p": 0.5},
    "tensor_train": {"rows": 10},
}


def psctl(*arguments: str) -> tuple[int, str]:
    run = CliRunner().invoke(app, list(arguments))
    return run.exit_code, run.stdout


@pytest.mark.parametrize("kind", _models())
def test_what_is_shown_is_a_file_of_the_defaults(kind: str) -> None:
    code, text = psctl("config", "show", kind)
    assert code == 0
    model = _models()[kind]
    required = REQUIRED.get(kind, {})
    assert model(**yaml.safe_load(text) or {}, **required) == model(**required)
    for name in model.model_fields:
        assert f"{name}:" in text
    assert all(line.startswith("# ") for name in required for line in text.splitlines() if line.endswith("required"))


def test_every_setting_has_a_word_on_what_it_means() -> None:
    for kind in ("service", "table"):
        fields = _models()[kind].model_fields
        assert not [name for name, field in fields.items() if not field.description]
        text = "\n".join(documented(_models()[kind]))
        for field in fields.values():
            assert str(field.description).split(maxsplit=1)[0] in text


def test_as_json_it_is_a_schema() -> None:
    code, text = psctl("config", "show", "service", "--json")
    assert code == 0
    assert json.loads(text)["$defs"]["PerformanceConfig"]["properties"]["grpc_threads"]["default"] == 16


def test_an_unknown_kind_is_wrong_usage() -> None:
    assert psctl("config", "show", "nonsense")[0] == 2
    assert psctl("config", "check", "x.yaml", "--kind", "nonsense")[0] == 2


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text)
    return file


def test_a_sound_file(tmp_path: Path) -> None:
    code, text = psctl("config", "check", str(written(tmp_path, "limits: {max_ids: 1000}\n")))
    assert code == 0
    assert "a sound service file" in text
    assert psctl("config", "check", str(written(tmp_path, "launch: {shards: 3}\nlimits: {max_ids: 1000}\n")))[0] == 0
    file = written(tmp_path, "tables:\n- {name: a, dim: 4}\n- {name: b, dim: 8, cold: {kind: fp16}}\n")
    assert psctl("config", "check", str(file))[0] == 0
    assert [table.name for table in tables_of(file)] == ["a", "b"]


BAD = [
    (
        "grpc_thread: 3\nperformance: {grpc_thread: 3}\nnetwork: {host: 3}\nmemory: {ram_bytes: 8G}\n",
        {
            "grpc_thread": "do you mean performance.grpc_threads?",
            "performance.grpc_thread": "do you mean grpc_threads?",
            "network.host": "valid string",
            "memory.ram_bytes": "8GiB (8 x 1024^3 bytes), 8GB (8 x 1000^3 bytes)",
        },
    ),
    (
        "ram_bytes: 1\ndisk_path: /x\nmetrics: true\n",
        {"ram_bytes": "is now memory.ram_bytes", "disk_path": "is now disk.path", "metrics": "is now watching.metrics"},
    ),
    ("limits:\n  max_ids: 1\n  max_ids: 2\n", {"max_ids": "is given 2 times, near line 2"}),
    ("a: [", {"": "is no YAML"}),
    ("7", {"": "expected a mapping of settings, found int"}),
    (
        "launch: {shard: 3, placement: {cpu: 1}}\n",
        {"launch.shard": "shards?", "launch.placement.cpu": "do you mean cpus?"},
    ),
    ("launch: 3\n", {"launch": "expected a mapping of settings, found int"}),
    ("tables: 3\n", {"tables": "expected a list of tables, found int"}),
    ("tables: []\ntabels: []\n", {"tabels": "do you mean tables?"}),
    ("- 3\n", {"tables[0]": "expected a mapping of settings, found 3"}),
    (
        "- {name: a, dimm: 3}\n- {name: a, dim: 4, optimizer: {kind: adam, lr: -1, beta3: 1}}\n",
        {
            "tables[a].dim": "required",
            "tables[a].dimm": "do you mean dim?",
            "tables[a].optimizer.lr": "greater than",
            "tables[a].optimizer.beta3": "do you mean beta",
            "tables[a]": "there are 2 of this name",
        },
    ),
]


@pytest.mark.parametrize(("text", "problems"), BAD, ids=lambda value: str(value)[:30])
def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, text: str, problems: dict[str, str]) -> None:
    file = written(tmp_path, text)
    code, found = psctl("config", "check", str(file), "--json")
    assert code == 1
    said = {problem["field"]: problem["says"] for problem in json.loads(found)["problems"]}
    assert set(said) == set(problems)
    for field, says in problems.items():
        assert says in said[field]
    code, shown = psctl("config", "check", str(file))
    assert code == 1
    assert len(shown.splitlines()) == len(problems)
    assert all(line.startswith(str(file)) for line in shown.splitlines())


def test_what_a_service_file_is_and_what_a_tables_file_is(tmp_path: Path) -> None:
    file = written(tmp_path, "name: t\ndim: 4\n")
    assert check(file).kind == "service"
    assert check(file, "tables").problems[0].field == "name"
    with pytest.raises(ps.ConfigError, match="no such setting; do you mean tables"):
        tables_of(file)
    with pytest.raises(ps.NotFound, match="No such file"):
        check(tmp_path / "nothing.yaml")
