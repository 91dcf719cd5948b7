"""How a step's gradients go to the shards: whole, or what a sparsifier selects of them, with the rest held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ps.client.arrays import ArrayLike
from ps.client.client import Client
from ps.client.step import Step
from ps.config import TableConfig, TensorTrain
from ps.errors import InvalidArgument
from ps.round import Round
from ps.wire.bags import PooledBags
from ps.wire.selected import PooledGradients, Selected
from worker.pooled_gradients import BagSelector
from worker.selection import Selection
from worker.sparsify import Sparsifier
from worker.thresholds import Sparsify, Threshold

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FLUSH_BYTES = 256 << 10
"""Of gradients in one push of what was held back: a shard with little RAM takes no large bodies."""

NOT_POOLED: Mapping[str, PooledBags] = {}


class Pushes:
    """Those of one collection of tables. `begin` on the trainer's thread, step by step; what it returns on any."""

    def __init__(
        self, client: Client, tables: Sequence[TableConfig], sparsify: Sparsify | Mapping[str, Sparsify] | None
    ) -> None:
        """`sparsify`: for all tables, or by table. Tables without one push everything; or what their wire format does
        not mask, and the rest is held back as well: a push by itself would drop it."""
        self._client = client
        asked = sparsify if isinstance(sparsify, Mapping) else {t.name: sparsify for t in tables if sparsify}
        if unknown := asked.keys() - {table.name for table in tables}:
            raise InvalidArgument(f"sparsify names tables {sorted(unknown)} that are not among `tables`")
        masks = {table.name: client.formats.of(table.name).mask_below for table in tables}
        by_table: dict[str, Sparsify] = {
            **{name: Threshold(mask, by="elements") for name, mask in masks.items() if mask},
            **asked,
        }
        self.sparsifiers = {
            table.name: Sparsifier(by_table[table.name], table.dim) for table in tables if table.name in by_table
        }
        self._bag_selectors = {name: BagSelector(_of_bags(one.config)) for name, one in self.sparsifiers.items()}
        for name, share in self.important_shares.items():
            client.formats.of(name).flagged(share, name)  # raises where both part the rows, and not at one share
        # in a tensor-train table every id has a value: none is new
        self._has_new_rows = {table.name for table in tables if not isinstance(table.cold, TensorTrain)}

    @property
    def wants_exists(self) -> bool:
        """Whether `begin` has a use for which ids have rows."""
        return bool(self.sparsifiers)

    @property
    def important_shares(self) -> dict[str, float]:
        """Per table whose rows may be relaxed: the share of them that counts as important."""
        relaxed = {name: sparsifier.config.relaxed for name, sparsifier in self.sparsifiers.items()}
        return {name: config.share for name, config in relaxed.items() if config is not None}

    def begin(
        self,
        step: Step,
        grads: Mapping[str, torch.Tensor],
        ids: Mapping[str, Ids],
        exists: Mapping[str, Flags],
        positives: Mapping[str, ArrayLike],
        pooled: Mapping[str, PooledBags] = NOT_POOLED,
        *,
        rows: Mapping[str, torch.Tensor],
        important: Mapping[str, Flags],
        in_round: Round | None = None,
        timeout_s: float | None = None,
    ) -> Callable[[], None]:
        """Selects at once, in the order of the steps, and returns what is to be done on another thread: the push.

        grads: per table float32 [U, D] of unique ids [U]. Rows of ids that had none when they were pulled go whole.
        pooled: tables whose gradients are of bags, [B, D]: what is not sent of those is held back by row.
        rows: as pulled, in the order of `grads`; important: of the tables in `important_shares`. In tables that are
        pooled no row waits for being relaxed: its value is not known here.
        If the push fails, what was selected is in neither its residuals nor, for certain, its rows: the trainer hears
        of it, and goes on from a checkpoint or without.
        """
        parts: dict[str, ArrayLike | Selected | PooledGradients] = dict(grads)
        selections: dict[str, Selection] = {}
        for name, sparsifier in self.sparsifiers.items():
            grads_ND, new_U = grads[name].detach().numpy(), ~exists[name] if name in self._has_new_rows else None
            if name not in pooled:
                values_UD, important_U = rows[name].detach().numpy(), important.get(name)
                selections[name] = sparsifier.select(
                    ids[name],
                    grads_ND,
                    new_U,
                    rows_UD=values_UD,
                    important_U=important_U,
                    send_others=in_round is None,
                )
                parts[name] = selections[name].selected
                continue
            of_bags, rest_UD, made_U = self._bag_selectors[name].select(pooled[name], len(ids[name]), grads_ND)
            always_U = None if new_U is None else new_U & (~made_U | rest_UD.any(axis=1))
            selections[name] = sparsifier.select(ids[name], rest_UD, always_U, send_others=in_round is None)
            parts[name] = PooledGradients(of_bags, selections[name].selected)

        def push() -> None:
            step.push(parts, positives=positives, in_round=in_round, timeout_s=timeout_s)
            for name, selection in selections.items():
                self._finish(name, selection)

        return push

    def flush(self) -> None:
        """Sends all that is held back. When no push is on its way."""
        for name, sparsifier in self.sparsifiers.items():
            most = max(1, FLUSH_BYTES // (4 * sparsifier.dim))
            while len(selection := sparsifier.flush(most)):
                self._finish(name, selection)
            sparsifier.commit(selection)

    def state_dict(self) -> dict[str, Any]:
        """What is held back, by table. When no push is on its way."""
        return {name: sparsifier.state_dict() for name, sparsifier in self.sparsifiers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises InvalidArgument where it is of other tables."""
        if state.keys() != self.sparsifiers.keys():
            raise InvalidArgument(
                f"the state holds back gradients of tables {sorted(state)}, `sparsify` is for "
                f"{sorted(self.sparsifiers)}"
            )
        for name, sparsifier in self.sparsifiers.items():
            sparsifier.load_state_dict(state[name])

    def _finish(self, name: str, selection: Selection) -> None:
        """Rows that are not of the step go by their ids."""
        if len(selection.others.ids_R):
            self._client.push(name, selection.others.ids_R, selection.others.grads_RD)
        self.sparsifiers[name].commit(selection)


def _of_bags(config: Sparsify) -> Sparsify:
    """What of the gradients of bags is sent: a bag does not come again, so whoever asks for `hold` gets them whole."""
    return Threshold(0.0, by=config.by) if config.hold is not None else config
