"""Where compiled kernels are kept, and whether all of them are there.

numba keeps what it has compiled in files and asks a locator where; this one answers for our kernels and for nothing
else. It takes the first of these folders that can be written: NUMBA_CACHE_DIR, the one beside the kernels, the user's
cache, a private one in the temporary directory, which is said once in a process. A folder that cannot be written but
has all kernels (an image of a container, say) is copied into the one that is taken.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import UserProvidedCacheLocator

from ps.errors import InvalidArgument
from ps.kernels import sources

KERNELS = Path(__file__).parent
OURS = f"{__name__}.KernelLocator"
NUMBAS = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
"""numba's own, for all files but ours."""

log = logging.getLogger(__name__)


class KernelLocator(UserProvidedCacheLocator):  # type: ignore[misc]  # numba has no types
    """numba's question, answered for a function of this package."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno
        self._cache_path = str(folder())

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> KernelLocator | None:
        """Returns None for a file that is not ours: numba asks its own locators then."""
        return cls(py_func, py_file) if sources.is_ours(Path(py_file)) else None

    def get_source_stamp(self) -> bytes:
        """Returns another value when the kernel must be compiled again."""
        return sources.stamp(Path(self._py_file))

    def get_disambiguator(self) -> str:
        """Tells apart the functions of one name in files of one name."""
        return f"{sources.room_of(Path(self._py_file))}-{self._lineno}"


def register() -> None:
    """Before the first kernel is made. Whoever has set NUMBA_CACHE_LOCATOR_CLASSES is asked after us."""
    others = numba.config.CACHE_LOCATOR_CLASSES or NUMBAS
    if OURS not in others:
        numba.config.CACHE_LOCATOR_CLASSES = f"{OURS},{others}"


@cache
def folder() -> Path:
    """Where this process keeps compiled kernels. Raises InvalidArgument where nothing can be written."""
    wanted = [place() for place in (_given, _beside, _users)]
    candidates = [place for place in wanted if place is not None]
    for place in candidates:
        if _writable(place):
            return place
    taken = _temporary()
    if taken is None:
        tried = ", ".join(map(str, candidates))
        raise InvalidArgument(
            f"compiled kernels can be kept nowhere (not in {tried}, nor in a temporary directory): set NUMBA_CACHE_DIR "
            "to a folder that can be written"
        )
    full = [place for place in candidates if _has_all(place)]
    if full and not _has_all(taken):
        shutil.copytree(full[0], taken, dirs_exist_ok=True, copy_function=_copy_whole)
    elif not full:
        log.warning(
            "compiled kernels cannot be kept in %s: they are kept in %s, as long as that is there; set NUMBA_CACHE_DIR "
            "to a folder that can be written",
            " or ".join(map(str, candidates)),
            taken,
        )
    return taken


def is_complete() -> bool:
    """Whether all kernels were compiled for this machine and are kept."""
    return bool(numba.config.DISABLE_JIT) or _has_all(folder())


def mark_complete() -> None:
    """All kernels are there now. Marks of other versions are taken away: who goes back to one looks again."""
    with suppress(OSError):  # without it the next process looks again
        _mark(folder()).touch()
        for other in folder().glob(f"{_mark_prefix()}*"):
            if other != _mark(folder()):
                other.unlink(missing_ok=True)


@contextmanager
def compiling(on_wait: Callable[[], object]) -> Iterator[None]:
    """Held by one process on a machine at a time; calls `on_wait` if another has it. A process that dies lets it go."""
    with (folder() / "compiling.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: several may compile the same
            log.info("no lock in %s: %s", folder(), error)
        yield


def _given() -> Path | None:
    return _below(Path(numba.config.CACHE_DIR)) if numba.config.CACHE_DIR else None


def _beside() -> Path | None:
    return KERNELS / "__pycache__"


def _users() -> Path | None:
    with suppress(RuntimeError):  # nobody knows where home is
        return _below(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedding-ps")
    return None


def _temporary() -> Path | None:
    """A folder that only this user can write: what lies there is run."""
    with suppress(OSError):
        place = Path(tempfile.gettempdir()) / f"embedding-ps-kernels-{os.geteuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        private = found.st_uid == os.geteuid() and not found.st_mode & 0o077 and not place.is_symlink()
        below = _below(place if private else Path(tempfile.mkdtemp(prefix="embedding-ps-kernels-")))
        if _writable(below):
            return below
    return None


def _below(place: Path) -> Path:
    """Installations that share a folder have one each in it."""
    return place / str(UserProvidedCacheLocator.get_suitable_cache_subpath(str(KERNELS / "__init__.py")))


def _copy_whole(source: str, target: str) -> None:
    """Another process may be reading there, or copying too."""
    part = f"{target}.{os.getpid()}"
    shutil.copyfile(source, part)
    os.replace(part, target)


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True


def _has_all(place: Path) -> bool:
    try:
        return _mark(place).exists()
    except OSError:  # a folder that we may not look into
        return False


def _mark(place: Path) -> Path:
    return place / f"{_mark_prefix()}{sources.release()}"


def _mark_prefix() -> str:
    return f"compiled-{sources.version()}-"
