"""The collectives of the dense part's exchange.

Payloads have different lengths: the ranks exchange their sizes (8 bytes), then all payloads, padded to the longest.
Padding to a capacity fixed beforehand would save that round trip, but costs its whole length in every step, and the
number of elements above a threshold varies by more than 8 bytes; what does not fit would need a second exchange, or be
held back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ps.errors import InvalidArgument

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SIZE_BYTES = 8
_REFUSED = -1


def gather(payload: torch.Tensor, refused: bool, group: ProcessGroup) -> list[torch.Tensor] | None:
    """Sends payload, uint8 [any length], and returns the payloads of all ranks without padding, in the order of the
    ranks.

    refused: this rank has no payload, and no rank shall get any: every rank gets None.
    """
    ranks = dist.get_world_size(group)
    size = torch.tensor([_REFUSED if refused else len(payload)], dtype=torch.int64, device=payload.device)
    sizes = [torch.empty_like(size) for _ in range(ranks)]
    dist.all_gather(sizes, size, group=group)
    lengths = [int(length) for length in sizes]
    if _REFUSED in lengths:
        return None
    if not any(lengths):
        return [payload] * ranks
    padded = payload.new_zeros(max(lengths))
    padded[: len(payload)] = payload
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded, group=group)
    return [part[:length] for part, length in zip(parts, lengths, strict=True)]


def agree(mine: object, group: ProcessGroup, error: InvalidArgument | None = None) -> None:
    """Raises on every rank what is wrong on any of them: ranks whose settings differ would wait for each other's
    exchanges for ever."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    said: list[object] = [None] * ranks
    dist.all_gather_object(said, mine, group=group)
    if error is not None:
        raise error
    differing = [other for other, theirs in enumerate(said) if theirs != mine]
    if differing:
        raise InvalidArgument(
            f"rank {rank} has {mine!r}, but rank {differing[0]} {said[differing[0]]!r}: "
            "all ranks need the same model, the same DenseConfig and states saved at the same step"
        )
