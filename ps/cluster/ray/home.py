"""Prepares what Ray needs of a host and fails over without a clear message: a temporary directory whose path is short
enough for sockets, and a token. Also makes a local Ray listen on loopback."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled, without types

from ps.errors import InvalidArgument
from ps.runtime.entropy import SYSTEM_ENTROPY

AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LONGEST_TEMPORARY = 37
"""The longest path, in bytes, of Ray's temporary directory. Ray's sockets lie below it at
/ray/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store, up to 70 bytes more, and the path of a socket has at most
107."""
CLUSTERS = "ENABLE_RAY_CLUSTER"
"""The constant of Ray that says whether other hosts are to reach a node."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")

log = logging.getLogger(__name__)


def own() -> dict[str, Any]:
    """Returns arguments of `ray.init` for a local Ray. Raises InvalidArgument if no temporary directory can be used."""
    _make_token()
    if AUTH_MODE not in os.environ:
        _authenticate()
    wanted = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    if _serves(wanted):
        return {}
    for other in SHORT:
        if _serves(other):
            log.warning(
                "Ray cannot use the temporary directory %s (a path for sockets has %d bytes, and it must be possible "
                "to write there): it uses %s; set RAY_TMPDIR to choose another",
                wanted,
                LONGEST_TEMPORARY,
                other,
            )
            return {"_temp_dir": f"{other}/ray"}
    raise InvalidArgument(
        f"Ray needs a temporary directory with a path of at most {LONGEST_TEMPORARY} bytes that can be written, and "
        f"{', '.join((wanted, *SHORT))} are not: set RAY_TMPDIR to one"
    )


@contextmanager
def on_loopback() -> Iterator[None]:
    """Makes a Ray that is started inside the block listen on loopback, with all its processes, as it does on macOS and
    Windows by itself. On Linux it would listen on all interfaces, and no argument changes that: Ray replaces 127.0.0.1
    as a node's address by one that other hosts reach."""
    before = getattr(ray_constants, CLUSTERS, True)
    setattr(ray_constants, CLUSTERS, False)
    try:
        yield
    finally:
        setattr(ray_constants, CLUSTERS, before)


def take_token() -> None:
    """Uses a token that is at hand before a running cluster is joined, as `ray start` does. A cluster without
    authentication does not look at it."""
    if AUTH_MODE not in os.environ and AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        _authenticate()


def token_advice() -> str:
    """Says what to do when a cluster does not answer because the token is missing or wrong."""
    if os.environ.get(AUTH_MODE, "token").lower() != "token":
        return f"if the cluster asks for a token, unset {AUTH_MODE}"
    return (
        f"if the cluster asks for a token, it must be the head's: copy its ~/.ray/auth_token here, or set {TOKEN} or "
        f"{TOKEN_PATH}"
    )


def _authenticate() -> None:
    """Switches Ray's token authentication on for this process and those that it starts. Ray does this by itself, with a
    warning each time, when the mode is not set."""
    os.environ[AUTH_MODE] = "token"
    Config.initialize("")  # Ray has read the environment before


def _make_token() -> None:
    """Makes a token in the environment where Ray could not write its own, for example because the home directory is
    read-only."""
    if os.environ.get(AUTH_MODE, "token").lower() != "token" or os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH):
        return
    place = Path.home() / ".ray"
    if not (place / "auth_token").exists() and not _can_write(place):
        os.environ[TOKEN] = SYSTEM_ENTROPY.randbytes(32).hex()  # for the processes that Ray starts, too


def _serves(folder: str) -> bool:
    return len(os.fsencode(folder)) <= LONGEST_TEMPORARY and _can_write(Path(folder))


def _can_write(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return True
    return False
