"""A process that appends to a log, and says which versions are durable, until it is killed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from ps.durability.log.log import Mode
from ps.runtime.files import RealFiles
from tests.unit.durability.logs import Bytes, opened


def payload(version: int) -> bytes:
    """What the write of that version says."""
    return b"%d " % version * (version % 40)


def main(folder: str, mode: str, first: str) -> None:
    log = opened(RealFiles(), Mode(mode), Path(folder), segment_bytes=20_000)
    for version in count(int(first)):
        log.append(version, Bytes(payload(version)))
        if version % 3 == 0:
            log.durable(version).result()
            print(version, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
