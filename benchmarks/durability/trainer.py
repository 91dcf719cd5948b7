"""A trainer of `crash`: python -m benchmarks.durability.trainer PUSHES TRAINER LIFE ADDRESS TOLD

Pushes one step after the other until it is killed, or its stdin ends, and notes in TOLD how far it is. Each second push
names a step that was prepared.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

import ps
from benchmarks.durability.pushes import ACKNOWLEDGED, SENT, Pushes, told

PATIENCE_S = 600.0


def main(settings: str, trainer: int, life: int, address: str, path: str) -> None:
    """Pushes for as long as it may."""
    pushes, mine = Pushes.from_json(settings), told(Path(path))[trainer, life]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with ps.connect(address, timeout_s=PATIENCE_S) as client:
        print(address, flush=True)
        for number in count(1):
            ids, grads = pushes.push(trainer, life, number)
            step = client.prepare(ids)
            if number % 2:
                step.pull()
            mine[SENT] = number
            step.push(grads)
            mine[ACKNOWLEDGED] = number


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)  # what is under way is not waited for: as a kill


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
