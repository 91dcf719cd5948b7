"""The checkpoints of a run: when they are made, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal

from ps import Client
from ps.errors import RolledBack, StateLost
from ps.nn import TrainingCheckpoints
from worker.train.ranks import Meeting
from worker.train.settings import Settings
from worker.train.trainer import Trainer


class RunCheckpoints:
    """The checkpoints of one trainer's run; there are none where no folder was given. A new one gives the service the
    rows of the newest checkpoint if the run is resumed, so make it before the tables."""

    def __init__(self, settings: Settings, client: Client, place: Meeting, console: Console) -> None:
        self.first_step = 0
        """How many steps the run that is resumed has made."""
        self.rows_before = 0
        """How many rows of the data these steps were trained on, on all ranks; known when the trainer is loaded."""
        self._asked = asked = settings.checkpoints
        self._console = console
        self._ranks = place.ranks
        self._made = 0
        if asked.folder is None:
            return
        self._checkpoints = TrainingCheckpoints(
            asked.folder, client, settings=settings.that_stay(place.ranks), service_path=asked.rows
        )
        if asked.resume:
            self._made = self.first_step = self._checkpoints.restore_rows(rewind=asked.rewind)
            found = (
                f"resumed at step {self.first_step:,}" if self.first_step else "no checkpoint yet, so the run begins"
            )
            console.print(f"{asked.folder}: {found}", highlight=False, soft_wrap=True)

    def load(self, trainer: Trainer) -> None:
        """Gives a new trainer the state that the checkpoint has, if the run is resumed."""
        if self.first_step:
            self._checkpoints.load(trainer.parts())
            self.rows_before = self._ranks * len(trainer.metrics)

    def after(self, step: int, trainer: Trainer) -> None:
        """Makes a checkpoint after the step if it is time."""
        self._made = step
        if self._asked.folder is not None and step % self._asked.every == 0:
            self._save(trainer)

    def at_the_end(self, trainer: Trainer) -> None:
        """Makes the checkpoint of the last step, unless it has just been made. What is held back is in it: it is sent
        afterwards."""
        if self._asked.folder is not None and self._made > self._checkpoints.last:
            self._save(trainer)

    @contextmanager
    def remedy_told(self) -> Iterator[None]:
        """Adds to the error of a service that has lost rows how the run goes on from the last checkpoint."""
        try:
            yield
        except (RolledBack, StateLost) as error:
            if self._asked.folder is None or not self._checkpoints.last:
                raise
            options = "--resume --rewind" if isinstance(error, RolledBack) else "a new service and --resume"
            raise type(error)(f"{error}. Go on from step {self._checkpoints.last:,} with {options}") from error

    def _save(self, trainer: Trainer) -> None:
        saved = self._checkpoints.save(self._made, trainer.parts())
        self._console.print(
            f"checkpoint at step {saved.step:,}: {decimal(saved.trainer_bytes)} of trainers + service checkpoint "
            f"{saved.service_name}, {saved.seconds:.1f} s",
            highlight=False,
        )
