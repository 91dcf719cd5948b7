"""A new optimizer is one file and its reference; what it lacks is told when it is imported."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ps.optimizers.registry import OPTIMIZERS, entry

HERE = Path(__file__).parent
SIGNS, REFERENCE = HERE / "signs.py", HERE / "signs_reference.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two files of a new optimizer."""
    (tmp_path / "reference").mkdir()
    shutil.copy(SIGNS, tmp_path / "signs.py")
    shutil.copy(REFERENCE, tmp_path / "reference" / "signs.py")
    return tmp_path


@pytest.mark.slow
def test_a_new_optimizer_is_two_files_and_trains_tables_in_ram_cold_and_on_disk(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.optimizers.train_signs", str(folder)]
    subprocess.run(command, check=True, timeout=200)


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as a package of its own, `toys`."""
    toys = folder / "toys"
    toys.mkdir()
    for name in ("__init__.py", "signs.py", "reference"):
        (folder / name).touch()
        shutil.move(folder / name, toys / name)
    (toys / "reference" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder))
    for name in ("toys", "toys.signs", "toys.reference", "toys.reference.signs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return toys


def test_an_optimizer_that_is_complete_is_taken(package: Path) -> None:
    found = entry(importlib.import_module("toys.signs"))
    assert found.config().kind == "signs"
    assert found.reference().__module__ == "toys.reference.signs"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("class Signs(Optimizer)", "class Signs(Positively)", "defines 0 subclasses of Optimizer"),
        ("    def half(", "    def halves(", "Signs lacks half"),
        ("    def rowwise(", "    def by_row(", "Signs lacks rowwise"),
        ("    def on_device(", "    def on_gpu(", "Signs lacks on_device"),
        ('Literal["signs"] = "signs"', 'Literal["sign"] = "sign"', "must be the file's name, 'signs'"),
        ("def update(", "def apply(", r"update\(\) must take rows_SW, slots_N, grads_ND"),
        ("grads_ND: Rows, lr: np.float32", "grads_ND: Rows", "then the 1 that `arguments` returns"),
        ('("lr",)', '("lr", "rate")', "`changeable` names rate, which are no settings of it"),
        ("brain=dim", "full=1", "it must keep 8 floats of value in binary16 and 8 of state"),
    ],
)
def test_what_an_optimizer_lacks_is_told(package: Path, old: str, new: str, says: str) -> None:
    text = (package / "signs.py").read_text().replace("import Positive", "import Positive, Frozen as Positively")
    assert old in text
    (package / "signs.py").write_text(text.replace(old, new))
    with pytest.raises(TypeError, match=says):
        entry(importlib.import_module("toys.signs"))


def test_a_reference_that_is_missing_is_told(package: Path) -> None:
    (package / "reference" / "signs.py").unlink()
    with pytest.raises(TypeError, match=r"has no reference: write its update in numpy, as toys\.reference\.signs"):
        entry(importlib.import_module("toys.signs"))


def test_every_file_of_the_folder_is_an_optimizer() -> None:
    files = {path.stem for path in (Path(sys.modules[entry.__module__].__file__ or "").parent).glob("*.py")}
    assert set(OPTIMIZERS) == files - {"__init__", "base", "arithmetic", "registry"}
