"""Reports of a server's process and its host, for looking for what is wrong."""

from __future__ import annotations

import errno
import os
import resource
import socket

from ps.runtime import held_files, host
from ps.runtime.address_space import PAGE
from ps.runtime.clock import SYSTEM_CLOCK


def process_report() -> dict[str, object]:
    """Returns the state of this process in numbers and words, for JSON."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return {
        "host": socket.gethostname(),
        "host_ram_bytes": host.host_ram_bytes(),
        "pid": os.getpid(),
        "rss_bytes": int(held_files.read_text("/proc/self/statm").split()[1]) * PAGE,
        "files_open": _files_open(limit),
        "files_limit": limit,
        "clock_s": SYSTEM_CLOCK.wall(),
    }


def _files_open(limit: int) -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError as error:  # looking takes a file, too
        if error.errno != errno.EMFILE:
            raise
        return limit
