"""Every command that the documents name exists: the program's subcommand and options, the make target, the benchmark,
the files. tests/ray/test_docs_commands.py runs those that can be run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import typer
from ray.scripts.scripts import cli as ray_cli

from benchmarks.__main__ import BENCHMARKS
from ps.cli import app
from tests.deploy import dockerfile
from tests.documents import ROOT, blocks, inline_commands, shell_blocks, words
from worker.train.command import app as trainer

PSCTL = typer.main.get_command(app)
TRAINER = typer.main.get_command(trainer)
DOCKER = dockerfile.read(ROOT / "docker" / "Dockerfile")
INSTALLED = (ROOT / "tests" / "install_packages.sh").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
A_PATH = re.compile(r"(?:deploy|docker|tests|docs|benchmarks)/[\w./-]+")


def of_click(command: Any, given: Sequence[str]) -> None:
    """The subcommands are there, and every option is one of the last of them.

    A command of click, or of typer, which has classes of its own for the same.
    """
    rest = list(given)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word not in {*options, "--help"}]
    assert not unknown, f"no option {', '.join(unknown)} of {command.name}"


def of_make(given: Sequence[str]) -> None:
    """The target is there, and what it would call is there too."""
    run = subprocess.run(["make", "-n", *given], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert run.returncode == 0, run.stderr
    called = [line for line in run.stdout.splitlines() if line.startswith(".venv/bin/python -m ")]
    for line in called:
        if not line.startswith((".venv/bin/python -m pip", ".venv/bin/python -m venv")):
            check(line)


def of_python(given: Sequence[str]) -> None:
    """The module or file is there, with these benchmarks or these options."""
    if given[0] != "-m":
        assert (ROOT / given[0]).is_file(), f"no file {given[0]}"
        return
    module, rest = given[1], [word for word in given[2:] if word != ">"]
    assert importlib.util.find_spec(module) is not None, f"no module {module}"
    if module == "worker.train":
        of_click(TRAINER, rest)
    elif module == "benchmarks":
        unknown = [word for word in rest if word not in {*BENCHMARKS, "--json", "--quick", "--full", "figures.jsonl"}]
        assert not unknown, f"no benchmark {', '.join(unknown)}"


def of_pip(given: Sequence[str]) -> None:
    """Extras of ours are in pyproject.toml."""
    for name, extra in re.findall(r"([\w-]+)\[(\w+)\]", " ".join(given)):
        if name == PROJECT["name"]:
            assert extra in PROJECT["optional-dependencies"], f"no extra {extra}"


def of_docker(given: Sequence[str]) -> None:
    """The stage that it builds is in the Dockerfile; of_files looks for the files."""
    if "--target" in given:
        assert given[given.index("--target") + 1] in DOCKER


def of_apt(given: Sequence[str]) -> None:
    """What the tests install too."""
    assert given[0] == "install"
    for package in given[1:]:
        assert re.search(rf"^ +{package} ", INSTALLED, re.MULTILINE), package


def of_pre_commit(given: Sequence[str]) -> None:
    assert list(given) == ["install"]
    assert (ROOT / ".pre-commit-config.yaml").is_file()


def of_files(given: Sequence[str]) -> None:
    """Nothing is known of the program's own options here."""
    for word in given:
        if A_PATH.fullmatch(word) and not word.startswith("docs/"):
            assert (ROOT / word).exists(), f"no file {word}"


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "psctl": lambda given: of_click(TRAINER, given[1:]) if given[0] == "train" else of_click(PSCTL, given),
    "ray": lambda given: of_click(ray_cli, given),
    "make": of_make,
    "python": of_python,
    ".venv/bin/python": of_python,
    "torchrun": lambda given: of_python(given[given.index("-m") :]),
    "pip": of_pip,
    "docker": of_docker,
    "apt-get": of_apt,
    ".venv/bin/pre-commit": of_pre_commit,
    "kubectl": of_files,
    "promtool": of_files,
    "cp": of_files,
    "systemctl": of_files,
    "ulimit": of_files,
}


def check(command: str) -> None:
    program, *given = [word for word in words(command) if not re.match(r"[A-Z]\w*=", word)] or [""]
    assert program in CHECKS, f"{program}: say in CHECKS what can be looked at without running it"
    of_files(given)
    CHECKS[program](given)


IN_BLOCKS = [(block.document, command) for block in shell_blocks() for command in block.commands]


@pytest.mark.parametrize(
    ("document", "command"), IN_BLOCKS + inline_commands(), ids=lambda part: re.sub(r"\s+", " ", part)[:70]
)
def test_what_it_names_is_there(document: str, command: str) -> None:
    check(command)


@pytest.mark.parametrize(
    "wrong",
    [
        "psctl restart",
        "psctl up --shard 2",
        "python -m worker.train --data flights --workers 2",
        "python -m benchmarks pulls",
        "python -m benchmarks.nothing",
        "python deploy/nothing.py",
        "make everything",
        "ray upp deploy/cluster.yaml",
        "ray up deploy/clusters.yaml",
        "pip install 'embedding-ps[nothing]'",
        "docker build --target nothing .",
        "apt-get install nothing",
        "helm install nothing",
    ],
)
def test_one_that_is_not_there_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


def test_the_documents_are_read_whole() -> None:
    """A document in another form would be read as one without commands."""
    assert {block.document for block in shell_blocks()} >= {"README.md", "CONTRIBUTING.md", "docs/operations.md"}
    assert len(IN_BLOCKS) > 30
    readme = (ROOT / "README.md").read_text().splitlines()
    for block in blocks("README.md"):
        assert block.text.splitlines()[0] in readme[block.line - 1]
