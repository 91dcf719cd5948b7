"""What the ranks of `test_together` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ps
from ps.nn import TrainingCheckpoints
from worker.train.ranks import Meeting


class Counter:
    """A part that counts, and that cannot be saved at 13."""

    def __init__(self, number: int) -> None:
        self.number = number

    def state_dict(self) -> int:
        if self.number == 13:
            raise ps.InvalidArgument("13 is not saved")
        return self.number

    def load_state_dict(self, state: int) -> None:
        self.number = state


def saved_and_loaded(meeting: Meeting, addresses: list[str], folder: Path) -> dict[str, Any]:
    """Saves, fails at the second step on the second rank, saves again; then goes on in another service."""
    meeting.join()
    raised = ""
    with ps.connect(addresses[0]) as client:
        checkpoints = TrainingCheckpoints(folder, client)
        checkpoints.save(1, {"counter": Counter(meeting.rank)})
        try:
            checkpoints.save(2, {"counter": Counter(13 if meeting.rank == 1 else 0)})
        except ps.InvalidArgument as error:
            raised = str(error)
        steps = checkpoints.steps
        made = checkpoints.save(3, {"counter": Counter(5 + 10 * meeting.rank)})
    counter = Counter(0)
    with ps.connect(addresses[1]) as client:
        checkpoints = TrainingCheckpoints(folder, client)
        step = checkpoints.restore_rows()
        checkpoints.load({"counter": counter})
    return {"raised": raised, "steps": steps, "made": made, "step": step, "counter": counter.number}
