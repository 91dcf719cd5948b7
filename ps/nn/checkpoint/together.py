"""The ranks of a run make a checkpoint together: what fails on one of them fails on all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist

from ps.errors import PsError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long a rank waits for the others: the first one waits for the service to write all of its rows. A rank that ends
is noticed at once."""


class Together:
    """This rank's place among those of torch's default process group; alone where there is none. Every rank makes the
    same calls in the same order."""

    def __init__(self) -> None:
        self.rank, self.ranks = 0, 1
        self._group: ProcessGroup | None = None
        if dist.is_available() and dist.is_initialized():
            self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        if self.ranks > 1:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def each(self, work: Callable[[], T]) -> T:
        """Does this rank's work and returns what it returned, when all ranks have done theirs. Raises on all ranks the
        error of the first that failed."""
        error: PsError | OSError | None = None
        try:
            value = work()
        except (PsError, OSError) as caught:
            error = caught
        if self._group is not None:
            said: list[PsError | OSError | None] = [None] * self.ranks
            dist.all_gather_object(said, error, group=self._group)
            error = next((one for one in (error, *said) if one is not None), None)
        if error is not None:
            raise error
        return value

    def of_first(self, work: Callable[[], T]) -> T:
        """Returns on all ranks what the work returns on the first, which alone does it. Raises its error on all."""
        found: list[T | None] = [self.each(work if self.rank == 0 else _nothing)]
        if self._group is not None:
            dist.broadcast_object_list(found, group=self._group)
        return found[0]  # type: ignore[return-value]  # the first rank's


def _nothing() -> None:
    return None
