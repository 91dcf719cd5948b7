"""What a wheel installs: `ps`, and nothing that is in the way of a user's own modules."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built in a copy of it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ps", "worker", "benchmarks", "deploy"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, out], cwd=source, capture_output=True, timeout=200, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_a_wheel_has_one_package(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"ps"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import worker, ps.nn; ps.nn.EmbeddingBagCollection; print(worker.MINE, ps.__file__)", "41 {installed}/ps"),
        ("import sys; sys.argv = ['psctl', 'train']; from ps.cli import main; main()", "is not installed"),
    ],
    ids=["torch side", "psctl train"],
)
def test_a_users_own_worker_is_not_in_the_way_of_an_installed_ps(
    wheel: Path, tmp_path: Path, code: str, words: str
) -> None:
    installed, own = tmp_path / "installed", tmp_path / "own"
    own.mkdir()
    (own / "worker.py").write_text("MINE = 41\n")
    zipfile.ZipFile(wheel).extractall(installed)
    script = f"import sys; sys.path[:0] = [{str(own)!r}, {str(installed)!r}]; {code}"
    run = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=own, timeout=100)
    assert words.format(installed=installed) in " ".join((run.stdout + run.stderr).split())
