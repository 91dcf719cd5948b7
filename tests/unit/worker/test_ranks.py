"""Several trainer processes: started together, ended together, and the first error told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import rank_programs as programs

from tests.waiting import until
from worker.train.ranks import TrainerFailed, run_ranks

pytestmark = pytest.mark.slow  # each starts processes that import torch


def gone(folder: Path) -> bool:
    """Whether no process that wrote its number here is left."""
    numbers = [int(file.name) for file in folder.iterdir()]
    assert len(numbers) == 2, "or the programs have not begun"
    return not any(alive(number) for number in numbers)


def alive(number: int) -> bool:
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # ended, but nobody has asked how


def test_each_rank_has_its_place_and_what_they_return_is_in_their_order(tmp_path: Path) -> None:
    assert run_ranks(2, programs.sum_of_ranks, tmp_path) == [(0, 2, 1.0), (1, 2, 1.0)]
    assert gone(tmp_path)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (programs.second_refuses, r"trainer 1 of 2: InvalidArgument: learning rate -1\.0: make it positive$"),
        (programs.second_has_a_bug, r"trainer 1 of 2: Traceback(.|\n)*ZeroDivisionError"),
        (programs.second_leaves, r"trainer 1 of 2: ended with exit code 3 and said nothing"),
        (programs.second_is_killed, r"trainer 1 of 2: was ended by SIGKILL"),
    ],
)
def test_the_first_error_of_any_ends_all_and_is_the_one_told(
    program: Callable[..., None], words: str, tmp_path: Path
) -> None:
    """The first rank waits in an exchange with the second, for five minutes unless it is ended."""
    with pytest.raises(TrainerFailed, match=words):
        run_ranks(2, program, tmp_path)
    assert gone(tmp_path)


def test_a_rank_that_does_not_listen_is_ended_too(tmp_path: Path) -> None:
    with pytest.raises(TrainerFailed, match="trainer 1 of 2: InvalidArgument"):
        run_ranks(2, programs.first_ignores_the_end, tmp_path)
    assert gone(tmp_path)


def test_the_patience_with_a_rank_that_hangs_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(TrainerFailed, match=r"trainer 0 of 2: Traceback(.|\n)*[Tt]imed? ?out"):
        run_ranks(2, programs.second_sleeps, tmp_path)
    assert gone(tmp_path)


def test_no_rank_survives_the_process_that_started_them(tmp_path: Path) -> None:
    parent = programs.started_elsewhere(tmp_path)
    until(lambda: len(list(tmp_path.iterdir())) == 2, limit_s=60)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: gone(tmp_path))
