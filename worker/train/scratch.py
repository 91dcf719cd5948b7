"""The temporary directory of a trainer's own shards. It is removed when the trainer ends, or at the next start if the
trainer was killed.

An owner holds a lock on a file in it for as long as it lives. The kernel releases the lock however the owner ends, and
knows the locks of all processes of the host, also in other containers, where a process id would mean nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "embedding-ps-"
_LOCK = "owner.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a new directory below TMPDIR, which is removed at the end of the block, also after an error."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with made as folder, (Path(folder) / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders of this user whose owners were killed. A folder without a lock file is just being made, or is
    not a trainer's."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            opened = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        with open(opened, "rb+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            shutil.rmtree(folder, ignore_errors=True)
