"""Where compiled kernels are kept, when they are compiled again, and by whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest

from ps.errors import InvalidArgument
from ps.kernels import cache, sources
from ps.kernels.index import segments
from ps.kernels.rows import rows
from tests.waiting import until

NOWHERE = Path("/proc/nowhere")
"""Cannot be made or written, by root neither."""


@pytest.fixture
def nothing_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Package, home and NUMBA_CACHE_DIR; what can be written is the temporary directory."""
    monkeypatch.setattr(cache, "KERNELS", NOWHERE)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(NOWHERE / "given"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(NOWHERE))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    yield tmp_path
    sources.release.cache_clear()


def found() -> Path:
    sources.release.cache_clear()
    return cache.folder.__wrapped__()


def test_a_kernel_is_kept_beside_its_file_or_where_numba_is_told_to(
    nothing_writable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache, "KERNELS", tmp_path / "package")
    assert found() == tmp_path / "package" / "__pycache__"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "given"))
    assert found().parent == tmp_path / "given"
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "KERNELS", NOWHERE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert found().parent == tmp_path / "cache" / "embedding-ps"


def test_where_nothing_can_be_written_it_is_a_private_temporary_folder_and_that_is_said(
    nothing_writable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = found()
    assert place.is_relative_to(nothing_writable)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert "set NUMBA_CACHE_DIR" in caplog.text
    assert found() == place, "every process finds the same one"


@pytest.mark.parametrize("squat", ["link", "open"])
def test_a_temporary_folder_that_others_can_write_is_not_used(nothing_writable: Path, squat: str) -> None:
    name = nothing_writable / f"embedding-ps-kernels-{os.geteuid()}"
    theirs = nothing_writable / "theirs"
    theirs.mkdir()
    if squat == "link":
        name.symlink_to(theirs)
    else:
        name.mkdir()
        name.chmod(0o777)
    place = found()
    assert not place.is_relative_to(name)
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_without_any_folder_the_remedy_is_named(nothing_writable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(NOWHERE))
    with pytest.raises(InvalidArgument, match="set NUMBA_CACHE_DIR to a folder that can be written"):
        found()


def test_a_folder_with_all_kernels_that_cannot_be_written_is_copied(
    nothing_writable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An image of a container whose file system is read-only."""
    full = tmp_path / "full"
    full.mkdir()
    sources.release.cache_clear()
    cache._mark(full).touch()
    (full / "rows.nbc").write_bytes(b"compiled")
    monkeypatch.setattr(cache, "_beside", lambda: full)
    writable = cache._writable
    monkeypatch.setattr(cache, "_writable", lambda place: place != full and writable(place))
    for _ in range(2):
        assert (found() / "rows.nbc").read_bytes() == b"compiled"
    assert caplog.text == ""


def change(file: Path) -> None:
    """Another text with the same times: an installer may set those of all files to the same."""
    times = file.stat()
    file.write_bytes(file.read_bytes() + b"\n# changed\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_kernel_is_compiled_again_when_what_it_inlines_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """rows.py inlines init.py, which inlines hashing.py of another folder; bags.py inlines neither."""
    shutil.copytree(cache.KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    files = ("rows/rows", "rows/bags", "index/hashing", "rows/places")

    def digests() -> dict[str, bytes]:
        sources._imports.cache_clear()
        return {name: sources.stamp.__wrapped__(tmp_path / "kernels" / f"{name}.py") for name in files}

    before, release = digests(), sources.release.__wrapped__()
    change(tmp_path / "kernels" / "index" / "hashing.py")
    after = digests()
    assert {name for name in files if before[name] != after[name]} == {"rows/rows", "index/hashing"}
    assert sources.release.__wrapped__() != release


def test_numba_asks_us_for_our_kernels_only() -> None:
    @numba.njit(cache=True)
    def stranger(x: int) -> int:
        return x + 1

    assert rows.gather.stats.cache_path == segments.find.stats.cache_path == str(cache.folder())
    assert stranger.stats.cache_path == str(Path(__file__).parent / "__pycache__")


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ps.server.compiling"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_processes_that_start_together_one_compiles_and_one_that_dies_lets_others_go_on(tmp_path: Path) -> None:
    killed = start(tmp_path)
    until(lambda: any(tmp_path.glob("*/*.nbc")), 120)  # it is at work
    others = [start(tmp_path), start(tmp_path)]
    said = [other.stderr.readline() for other in others if other.stderr]
    assert said == ["another process compiles the kernels: waiting for it...\n"] * 2
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    rest = [other.communicate(timeout=200)[1] for other in others]
    assert sorted(rest) == ["", "compiling kernels, once on this machine: about a minute...\n"]
    last = start(tmp_path)
    assert last.communicate(timeout=60)[1] == "", "all are there"
    assert [other.returncode for other in (*others, last)] == [0, 0, 0]
