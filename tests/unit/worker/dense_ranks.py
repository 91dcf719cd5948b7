"""Two ranks with gloo, as two processes that stay for a module's tests."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2
PATIENCE_S = 120


class RankFailed(AssertionError):
    """A rank's exception, with its stack."""


class RankPair:
    """run(program, *arguments) -> [program(0, *arguments), program(1, *arguments)], each in its own process."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def run(self, program: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((program, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(PATIENCE_S), f"rank {rank} says nothing for {PATIENCE_S} s"
            answers.append(pipe.recv())
        failed = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failed:
            raise RankFailed("\n".join(failed))
        return [answer for _, answer in answers]


@contextmanager
def rank_pair(folder: Path) -> Iterator[RankPair]:
    """They meet by a file, so no port can be taken."""
    context = mp.get_context("spawn")
    pipes, processes = [], []
    for rank in range(RANKS):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(rank, str(folder / "meeting"), theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        yield RankPair(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(rank: int, meeting: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    while True:
        try:
            program, arguments = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, program(rank, *arguments)))
        except Exception:  # noqa: BLE001  whatever a program raises is the test's to show
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()
