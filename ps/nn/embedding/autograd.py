"""The two places of a forward that autograd comes back to: where the features are put side by side, and the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ps.nn.embedding.prepared import Forward


class Stack(torch.autograd.Function):
    """Puts the features side by side. Its backward finds out which of them the loss uses, and keeps gradients from the
    others: torch hands it zeros for a feature that the loss has not used, as for every part of a tensor that was cut
    away."""

    @staticmethod
    def forward(ctx: Any, use: Forward | None, *pooled: torch.Tensor) -> Any:
        """Returns the features as one tensor, float32 [B, F, D]. use: takes which features a loss uses; None where no
        rows are trained (weights of samples may be trained all the same)."""
        ctx.use = use
        return torch.stack(pooled, dim=1)

    @staticmethod
    def backward(ctx: Any, grads_BFD: torch.Tensor) -> Any:
        """Hands each feature its gradient; one that the loss does not use gets none."""
        of_features = grads_BFD.unbind(1)
        if ctx.use is None:
            return None, *of_features
        used = [bool(grads_BD[:1].any() or grads_BD.any()) for grads_BD in of_features]
        ctx.use.used = {(f.name, f.table) for f, is_used in zip(ctx.use.features, used, strict=True) if is_used}
        return None, *(grads if is_used else None for grads, is_used in zip(of_features, used, strict=True))


class Watch(torch.autograd.Function):
    """The identity on the rows of all tables. Its backward runs once for each backward of a loss, when the gradients of
    all tables are known; the gradient of a table that the loss does not use is None.

    One function for all tables, and not a hook on each: a table that the loss did not use would never call its hook,
    and the others' gradients would wait for it for ever.
    """

    @staticmethod
    def forward(
        ctx: Any, add: Callable[[Sequence[torch.Tensor | None]], None], anchor: Any, *rows: torch.Tensor
    ) -> Any:
        """Returns the rows unchanged. add: takes their gradients in backward."""
        ctx.add = add
        ctx.anchor = anchor
        ctx.set_materialize_grads(False)
        return tuple(part.view_as(part) for part in rows)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        """Hands the gradients to `add`, and a gradient to the anchor, so that the anchor counts as used."""
        ctx.add(grads)
        return None, torch.zeros_like(ctx.anchor), *(None for _ in grads)
