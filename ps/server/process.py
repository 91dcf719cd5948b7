"""What a server's process says of itself and its host, for those who look for what is wrong."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

from ps import memory
from ps.address_space import PAGE


def process_report() -> dict[str, object]:
    """As of now: plain numbers and words, for JSON."""
    return {
        "host": socket.gethostname(),
        "host_ram_bytes": memory.host_ram_bytes(),
        "pid": os.getpid(),
        "rss_bytes": int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * PAGE,
        "files_open": len(os.listdir("/proc/self/fd")),
        "files_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "clock_s": time.time(),
    }
