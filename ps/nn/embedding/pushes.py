"""Pushes a step's gradients: all of them, or what a sparsifier selects, with the rest held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ps import ByImportance, Client, PooledGradients, Round, Selected, Step
from ps.config import TableConfig, TensorTrain
from ps.errors import InvalidArgument, NonFiniteGradient
from ps.nn.embedding.table_gradients import TableGradients
from ps.nn.sparsify.pooled_gradients import BagSelector
from ps.nn.sparsify.selection import Selection
from ps.nn.sparsify.sparsifiers import Sparsifier
from ps.nn.sparsify.thresholds import Sparsify, Threshold

FLUSH_BYTES = 256 << 10
"""Bytes of gradients in one push of a flush, because a shard with little RAM takes no large bodies."""


class Pushes:
    """Makes the pushes of one collection of tables. Threads: `begin` is called on the trainer's thread, step by step;
    what it returns on any."""

    def __init__(
        self, client: Client, tables: Sequence[TableConfig], sparsify: Sparsify | Mapping[str, Sparsify] | None
    ) -> None:
        """sparsify: for all tables, or by table. All gradients of a table without one are pushed. If the wire format
        masks small numbers of a table, these are held back as well, because a push alone would drop them."""
        self._client = client
        asked = sparsify if isinstance(sparsify, Mapping) else {t.name: sparsify for t in tables if sparsify}
        if unknown := asked.keys() - {table.name for table in tables}:
            raise InvalidArgument(f"sparsify names tables {sorted(unknown)} that are not among `tables`")
        dtypes = {table.name: client.wire_dtype(table.name) for table in tables}
        by_importance = {name: dtype for name, dtype in dtypes.items() if isinstance(dtype, ByImportance)}
        by_table: dict[str, Sparsify] = {
            **{name: Threshold(d.mask_below, by="elements") for name, d in by_importance.items() if d.mask_below},
            **asked,
        }
        self.sparsifiers = {
            table.name: Sparsifier(by_table[table.name], table.dim) for table in tables if table.name in by_table
        }
        self._bag_selectors = {name: BagSelector(_of_bags(one.config)) for name, one in self.sparsifiers.items()}
        for name, share in self.important_shares.items():
            if name in by_importance and by_importance[name].share != share:
                raise InvalidArgument(
                    f"table {name!r}: the most important {share} of the rows may be relaxed, but its wire dtype "
                    f"divides the rows at a share of {by_importance[name].share}: ask for the same share"
                )
        # in a tensor-train table every id has a value: none is new
        self._has_new_rows = {table.name for table in tables if not isinstance(table.cold, TensorTrain)}

    @property
    def wants_exists(self) -> bool:
        """Returns the tables for which `begin` must know which ids have rows."""
        return bool(self.sparsifiers)

    @property
    def important_shares(self) -> dict[str, float]:
        """Returns, for each table whose rows may be relaxed, the share of its rows that counts as important."""
        relaxed = {name: sparsifier.config.relaxed for name, sparsifier in self.sparsifiers.items()}
        return {name: config.share for name, config in relaxed.items() if config is not None}

    def begin(self, step: Step, parts: Mapping[str, TableGradients], in_rounds: bool) -> Callable[..., None]:
        """Selects at once, in the order of the steps, and returns the push as a function of `in_round` and `timeout_s`,
        to be called on another thread.

        If a selection is made, or the push is a part of a round, gradients that cannot be sent are refused here, before
        anything has changed. Raises what `Step.push` raises before it sends anything.

        If the push fails, the selected gradients are dropped, with what had been held for their rows: the shards may
        have applied them, and to hold them again might apply them twice. The error says so.
        """
        sent: dict[str, torch.Tensor | Selected | PooledGradients] = {name: part.grads for name, part in parts.items()}
        if self.sparsifiers or in_rounds:
            step.check(sent)
        selections: dict[str, Selection] = {}
        try:
            for name, part in parts.items():
                if name in self.sparsifiers:
                    selections[name], sent[name] = self._select(name, part, send_others=not in_rounds)
        except BaseException:
            self._drop(selections)
            raise
        positives = {name: part.positives_U for name, part in parts.items() if part.positives_U is not None}

        def push(in_round: Round | None, timeout_s: float | None) -> None:
            try:
                step.push(sent, positives=positives, in_round=in_round, timeout_s=timeout_s)
                for name, selection in selections.items():
                    self._push_others(name, selection)
            except BaseException as error:
                if dropped := self._drop(selections):
                    error.add_note(f"dropped with this push, as it may have been applied in part: {dropped}")
                raise
            for name, selection in selections.items():
                self.sparsifiers[name].commit(selection)

        return push

    def _select(
        self, name: str, part: TableGradients, send_others: bool
    ) -> tuple[Selection, Selected | PooledGradients]:
        """Returns what to send of one table. Rows of pooled tables are never relaxed, because their values are not
        known here. send_others: whether rows that are not in the step may be sent too; a round has no place for
        them."""
        sparsifier, grads = self.sparsifiers[name], part.grads.numpy()
        new_U = ~part.exists_U if name in self._has_new_rows and part.exists_U is not None else None
        if part.bags is None:
            values_UD = None if part.rows is None else part.rows.numpy()
            selection = sparsifier.select(
                part.ids_U,
                grads,
                new_U,
                rows_UD=values_UD,
                important_U=part.important_U,
                send_others=send_others,
            )
            return selection, selection.selected
        of_bags, rest_UD, made_U = self._bag_selectors[name].select(part.bags, len(part.ids_U), grads)
        always_U = None if new_U is None else new_U & (~made_U | rest_UD.any(axis=1))
        selection = sparsifier.select(part.ids_U, rest_UD, always_U, send_others=send_others)
        return selection, PooledGradients(of_bags, selection.selected)

    def _drop(self, selections: Mapping[str, Selection]) -> str:
        """Drops selections and returns in words what was dropped."""
        for name, selection in selections.items():
            self.sparsifiers[name].commit(selection)
        rows = {name: len(selection) for name, selection in selections.items() if len(selection)}
        return ", ".join(f"gradients of {n} rows of table {name!r}" for name, n in rows.items())

    def flush(self) -> None:
        """Sends all that is held back. Call it when no push is on its way. Gradients that cannot be sent stay held;
        those of a push that fails otherwise are dropped, as in `begin`."""
        for name, sparsifier in self.sparsifiers.items():
            most = max(1, FLUSH_BYTES // (4 * sparsifier.dim))
            while len(selection := sparsifier.flush(most)):
                try:
                    self._push_others(name, selection)
                except NonFiniteGradient:  # said before anything is sent
                    sparsifier.rollback(selection)
                    raise
                except BaseException as error:
                    error.add_note(
                        f"dropped with this push, as it may have been applied in part: {self._drop({name: selection})}"
                    )
                    raise
                sparsifier.commit(selection)
            sparsifier.commit(selection)

    def state_dict(self) -> dict[str, Any]:
        """Returns what is held back, and the thresholds for bags, by table. Call it when no push is on its way."""
        return {
            name: {**sparsifier.state_dict(), "bags": self._bag_selectors[name].state()}
            for name, sparsifier in self.sparsifiers.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what was held back. Raises InvalidArgument if the state is of other tables."""
        if state.keys() != self.sparsifiers.keys():
            raise InvalidArgument(
                f"the state holds back gradients of tables {sorted(state)}, `sparsify` is for "
                f"{sorted(self.sparsifiers)}"
            )
        for name, sparsifier in self.sparsifiers.items():
            sparsifier.load_state_dict(state[name])
            if "bags" in state[name]:  # older states lack it: the threshold is estimated in the next step
                self._bag_selectors[name].load(state[name]["bags"])

    def _push_others(self, name: str, selection: Selection) -> None:
        """Pushes rows that are not in the step, by their ids."""
        if len(selection.others.ids_R):
            self._client.push(name, selection.others.ids_R, selection.others.grads_RD)


def _of_bags(config: Sparsify) -> Sparsify:
    """Returns the setting for gradients of bags: all are sent if `hold` is set, because the same bag does not come
    again."""
    return Threshold(0.0, by=config.by) if config.hold is not None else config
