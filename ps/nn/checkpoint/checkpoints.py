"""Checkpoints from which a training run goes on as if it had never stopped.

    checkpoints = TrainingCheckpoints("checkpoints", client)
    step = checkpoints.restore_rows()         # before the tables are made; 0: there is none yet
    embeddings = EmbeddingBagCollection(client, tables)
    parts = {"model": model, "optimizer": optimizer, "embeddings": embeddings}
    checkpoints.load(parts)
    for step, batch in enumerate(islice(batches, step, None), start=step + 1):
        ...                                   # a training step, with embeddings.step()
        if step % 100 == 0:
            checkpoints.save(step, parts)

A checkpoint has the state of all parts of every rank, and one of the service, which has all pushes up to that step and
none after it. So a run in which nothing depends on the time ends with the same bits, however often it was killed:
one trainer, or several in a `Synchronous` group, without rows that are pulled ahead.

The order of `save`: every rank waits for its pushes and takes its states; when all have, the service makes its
checkpoint; all files are written and synced; then the folder gets its name, at once, and older ones are removed. Killed
anywhere, the checkpoint before is whole, and so is the service's that it names.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ps import Client
from ps.errors import CheckpointCorrupt, ConfigError, InvalidArgument
from ps.nn.checkpoint import dense
from ps.nn.checkpoint.folder import SERVICE, Folder, Manifest, Saved, disk_errors
from ps.nn.checkpoint.parts import Part, give, random_states, set_random_states, taken
from ps.nn.checkpoint.rows import restored
from ps.nn.checkpoint.together import Together
from ps.runtime.clock import SYSTEM_CLOCK
from ps.runtime.files import Files, RealFiles

KEEP = 2


class TrainingCheckpoints:
    """The checkpoints of one run, in a folder that all of its trainers see. Every rank of torch's default process group
    makes one, after the group, and then the same calls."""

    def __init__(
        self,
        folder: str | Path,
        client: Client,
        *,
        settings: Mapping[str, Any] | None = None,
        service_path: str | None = None,
        keep: int = KEEP,
        files: Files | None = None,
    ) -> None:
        """folder: all ranks and all shards see it. settings: what must be the same when the run goes on, in types of
        JSON: a checkpoint with others is refused. service_path: a folder or URL for the service's checkpoints, which
        all shards see. There the service writes only what has changed, and nothing is removed. None: each checkpoint
        has all rows in it. keep: how many checkpoints stay."""
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise InvalidArgument(f"keep={keep!r}: give how many checkpoints stay, 1 or more")
        self._files = files or RealFiles()
        self._folder = Folder(_absolute(folder), self._files)
        self._client = client
        self._settings = dict(settings or {})
        self._service_path = service_path
        self._keep = keep
        self._together = Together()
        self._exact = False
        """Whether the service was restored byte for byte."""
        self.last = 0
        """The step of the checkpoint that was made last, or from which the run goes on; 0: there is none."""

    @staticmethod
    def steps_in(folder: str | Path) -> list[int]:
        """Returns the steps of the checkpoints in a folder, ascending; none where there is no folder."""
        return Folder(_absolute(folder), RealFiles()).steps()

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, ascending."""
        return self._folder.steps()

    def restore_rows(self, *, rewind: bool = False) -> int:
        """Gives the service the rows that belong to the newest checkpoint, and returns its step; 0 where there is none:
        the run begins. Call it before the tables are made.

        A new service becomes what the saved one was. One that has had tables, because it went on after the checkpoint,
        is refused with TableExists, or, with `rewind`, its tables of these names are dropped, and filled again as the
        checkpoint has them: values, optimizer state and importance. Raises ConfigError for other settings or another
        number of ranks, CheckpointCorrupt for files that cannot be read, and what `Client.restore` raises.
        """
        self.last = self._together.of_first(lambda: max(self.steps, default=0))
        if self.last:
            manifest = self._together.each(self._checked)
            place = self._place_of_rows(manifest)
            self._exact = self._together.of_first(lambda: restored(self._client, manifest, place, rewind))
        return self.last

    def load(self, parts: Mapping[str, Part]) -> None:
        """Gives each part the state that it had in the checkpoint of `restore_rows`, and the random generators of
        torch, numpy and Python theirs; the client goes on as the worker that it was. Does nothing where there was no
        checkpoint. Raises InvalidArgument for other parts than those that were saved."""
        if not self.last:
            return
        place = self._folder.of(self.last)
        mine = self._together.each(lambda: self._of_rank(place))
        give(parts, dense.read(place / "dense"), mine["parts"])
        set_random_states(mine["random"])
        if self._exact:
            self._client.load_state_dict(mine["worker"])

    def save(self, step: int, parts: Mapping[str, Part]) -> Saved:
        """Makes the checkpoint of a step, between two steps. `parts`: by name, whatever must go on as it is, with
        `state_dict` and `load_state_dict`: modules, optimizers, collections, a `DctHook`, schedulers, your own.

        Waits for the pushes on their way. Raises InvalidArgument while gradients wait for a step, or for a step that is
        not later than the last checkpoint's, DiskFull, DiskError, and what `Client.checkpoint` raises; then the
        checkpoint before stays the newest, and training may go on.
        """
        started_s = SYSTEM_CLOCK.monotonic()
        self._check_step(step)
        with disk_errors(self._folder.path):
            tensors, rest = self._together.each(lambda: taken(parts))  # now all pushes of all ranks are applied
            self._together.of_first(lambda: self._folder.begin(step))
            inside = str(self._folder.unfinished(step) / SERVICE)
            name = self._together.of_first(lambda: self._client.checkpoint(self._service_path or inside))
            self._together.each(lambda: self._write(step, tensors, rest))
            nbytes = self._together.of_first(lambda: self._complete(step, name))
        self.last = step
        return Saved(step, self._folder.of(step), nbytes, name, SYSTEM_CLOCK.monotonic() - started_s)

    def _check_step(self, step: int) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step <= self.last:
            raise InvalidArgument(
                f"a checkpoint of step {step!r}: give the number of steps made, more than the last one's, {self.last}"
            )
        if newer := [one for one in self.steps if one > self.last]:
            raise InvalidArgument(
                f"{self._folder.path} has checkpoints of another run, up to step {newer[-1]}: go on from them "
                "(restore_rows), or give another folder"
            )

    def _checked(self) -> Manifest:
        """Returns what the newest checkpoint is of, if this run may go on from it."""
        manifest, place = self._folder.manifest(self.last), self._folder.of(self.last)
        told, asked = {**manifest.settings, "ranks": manifest.ranks}, {**self._settings, "ranks": self._together.ranks}
        differing = [name for name in {**told, **asked} if told.get(name) != asked.get(name)]
        if differing:
            words = ", ".join(f"{name} {told.get(name)!r}, now {asked.get(name)!r}" for name in differing)
            raise ConfigError(
                f"{place} was made with other settings: {words}. Give the same, or begin again in another folder"
            )
        return manifest

    def _of_rank(self, place: Path) -> dict[str, Any]:
        path = place / f"rank-{self._together.rank}.pt"
        try:
            content = io.BytesIO(self._files.read(path, 0, self._files.size(path)))
            found: dict[str, Any] = torch.load(content, weights_only=True)
        except Exception as error:
            raise CheckpointCorrupt(f"{path} cannot be read: {error}") from error
        return found

    def _write(self, step: int, tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> None:
        """Writes this rank's files: the first one has the dense part too."""
        made = self._folder.unfinished(step)
        if self._together.rank == 0:
            dense.write(made / "dense", tensors)
            self._files.sync_folder(made / "dense")
        content = io.BytesIO()
        torch.save({"parts": rest, "random": random_states(), "worker": self._client.state_dict()}, content)
        self._folder.write(made / f"rank-{self._together.rank}.pt", content.getvalue())

    def _complete(self, step: int, name: str) -> int:
        place = self._service_path or SERVICE
        tables = sorted(self._client.tables())
        self._folder.complete(Manifest(step, self._together.ranks, place, name, tables, self._settings))
        self._folder.prune(self._keep)
        return self._folder.nbytes(step)

    def _place_of_rows(self, manifest: Manifest) -> str:
        """Returns the folder or URL of the service's checkpoint that belongs to a checkpoint."""
        path = manifest.service_path
        return f"{self._folder.of(manifest.step) / SERVICE if path == SERVICE else path}/{manifest.service_name}"


def _absolute(folder: str | Path) -> Path:
    return Path(folder).expanduser().absolute()
