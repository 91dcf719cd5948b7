"""A selection and its checks, and which rows are sent when more would be held back than there is room for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps import Selected
from ps.arrays import Flags, Ids, Rows, Slots
from ps.errors import DimensionMismatch, DtypeMismatch, InvalidArgument, LengthMismatch, NonFiniteGradient
from ps.kernels.rows.rows import all_finite
from ps.nn.sparsify.residuals import Held, ResidualStore

AT_ONCE = 8
"""Where there is no room, an eighth of it is made free at once."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Gradients to be sent. Their sender owns them until the selection is committed or rolled back."""

    number: int
    selected: Selected
    """What is sent of the rows of this step, by position."""
    ids_R: Ids
    """Ids of the rows in `selected`."""
    others: Held
    """Gradients of rows that are not in this step, to be pushed by their ids, because there was no more room for them.
    Mostly empty."""

    def __len__(self) -> int:
        return len(self.ids_R) + len(self.others.ids_R)

    def by_id(self) -> Held:
        """Returns all gradients of the selection, by id."""
        return Held(
            np.concatenate((self.ids_R, self.others.ids_R)),
            np.concatenate((self.selected.grads_RD, self.others.grads_RD)),
        )


class OpenSelections:
    """The selections of one sparsifier whose fate is not known yet."""

    def __init__(self) -> None:
        self._open: dict[int, Selection] = {}
        self._made = 0

    def add(self, selected: Selected, ids_R: Ids, others: Held) -> Selection:
        """Makes a selection, which is open from now on."""
        selection = Selection(self._made, selected, ids_R, others)
        self._open[self._made] = selection
        self._made += 1
        return selection

    def check(self, selection: Selection) -> None:
        """Raises InvalidArgument unless the selection is open."""
        if self._open.get(selection.number) is not selection:
            raise InvalidArgument(f"selection {selection.number} is not open here: commit or roll back each one once")

    def remove(self, selection: Selection) -> None:
        """Closes a selection. Raises InvalidArgument unless it is open."""
        self.check(selection)
        del self._open[selection.number]

    def check_none(self, what: str) -> None:
        """Raises InvalidArgument while a selection is open."""
        if self._open:
            raise InvalidArgument(
                f"{len(self._open)} selections are open, and the state that is {what} would lack their gradients: wait "
                "until their pushes have ended, and commit or roll back each"
            )


@dataclass(frozen=True, eq=False)
class Parted:
    """How the totals of a step's rows are parted."""

    picked_U: npt.NDArray[np.int32]
    """How many single elements of each row are sent."""
    norms_U: Rows
    """Squared norms of what is not among those elements."""
    whole_U: Flags
    """Rows that are sent whole all the same."""
    stays_U: Flags
    """Rows of which something stays held."""
    threshold: np.float32
    """The threshold by which elements were selected."""


def joined(one: Held, other: Held) -> Held:
    """Returns both together; their ids differ."""
    return Held(np.concatenate((one.ids_R, other.ids_R)), np.concatenate((one.grads_RD, other.grads_RD)))


def checked(ids_U: Ids, grads_UD: Rows, always_U: Flags | None, dim: int) -> tuple[Ids, Rows, Flags]:
    """Returns arrays as the kernels need them: of the right type and contiguous. Raises what `Sparsifier.select`
    names."""
    if ids_U.dtype != np.int64 or grads_UD.dtype != np.float32:
        raise DtypeMismatch(f"ids of {ids_U.dtype} and gradients of {grads_UD.dtype}: give int64 and float32")
    if ids_U.ndim != 1 or grads_UD.ndim != 2 or len(grads_UD) != len(ids_U):
        raise LengthMismatch(f"ids of shape {ids_U.shape}, gradients of {grads_UD.shape}: give [U] and [U, {dim}]")
    if grads_UD.shape[1] != dim:
        raise DimensionMismatch(
            f"gradients of dim {grads_UD.shape[1]}, and the table has dim {dim}: give float32 [U, {dim}]"
        )
    always_U = np.zeros(len(ids_U), np.bool_) if always_U is None else always_U
    if always_U.dtype != np.bool_ or always_U.shape != ids_U.shape:
        raise LengthMismatch(f"`always` is {always_U.dtype} {always_U.shape}: give a bool for each of {len(ids_U)} ids")
    grads_UD = np.ascontiguousarray(grads_UD)
    if not all_finite(grads_UD.reshape(-1)):
        where = int(np.flatnonzero(~np.isfinite(grads_UD).all(axis=1))[0])
        raise NonFiniteGradient(
            f"the gradient of id {ids_U[where]} is not finite: held back, it would spoil all later ones; check the loss"
        )
    return np.ascontiguousarray(ids_U), grads_UD, always_U


def checked_rows(rows_UD: Rows | None, important_U: Flags | None, grads_UD: Rows) -> tuple[Rows | None, Flags]:
    """Returns the values that the rows have, and which of them are important; raises what `Sparsifier.select` names."""
    important_U = np.ones(len(grads_UD), np.bool_) if important_U is None else important_U
    if important_U.dtype != np.bool_ or important_U.shape != grads_UD.shape[:1]:
        raise LengthMismatch(
            f"`important` is {important_U.dtype} {important_U.shape}: give a bool for each of {len(grads_UD)} ids"
        )
    if rows_UD is None:
        return None, important_U
    if rows_UD.dtype != np.float32:
        raise DtypeMismatch(f"rows of {rows_UD.dtype}: give float32")
    if rows_UD.shape != grads_UD.shape:
        raise LengthMismatch(f"rows of shape {rows_UD.shape}, and their gradients of {grads_UD.shape}: give the same")
    return np.ascontiguousarray(rows_UD), important_U


def make_room(store: ResidualStore, slots_U: Slots, norms_U: Rows, stays_U: Flags) -> tuple[Held, Slots]:
    """Frees slots for the rows of a step that stay and have no slot. It frees, in this order: slots of rows of which
    nothing is held, those first that no step has named for the longest; slots of rows of the step of which nothing
    stays; slots of the rows with the largest residuals. In freed slots of the step, totals can still be read.

    Returns (what was held of rows outside the step, positions in the step of rows that must not stay because they are
    among the largest).
    """
    excess = len(store) + int(np.count_nonzero(stays_U & (slots_U < 0))) - store.max_rows
    if excess > 0:
        excess -= free_idle(store, excess)
    if excess > 0:
        sent_N = slots_U[(slots_U >= 0) & ~stays_U][:excess]
        store.release(sent_N)
        excess -= len(sent_N)
    others_N = chosen_N = np.empty(0, np.int64)
    if excess > 0:
        norms_S = store.norms_S.copy()
        norms_S[slots_U[slots_U >= 0]] = -1
        stays_norms_U = np.where(stays_U, norms_U, np.float32(-1))
        norms_N = np.concatenate((norms_S, stays_norms_U))
        least = np.partition(norms_N, len(norms_N) - excess)[len(norms_N) - excess]
        # Of rows that are as large as the least, those of the step go first, then others by id: never by their slots.
        equal_N, equal_U = store.by_id(np.flatnonzero(norms_S == least)), np.flatnonzero(stays_norms_U == least)
        left = excess - int(np.count_nonzero(norms_N > least))
        chosen_N = np.sort(np.concatenate((np.flatnonzero(stays_norms_U > least), equal_U[:left])))
        more_N = equal_N[: left - len(equal_U[:left])]
        others_N = store.by_id(np.concatenate((np.flatnonzero(norms_S > least), more_N)))
        store.release(slots_U[chosen_N[slots_U[chosen_N] >= 0]])
    return store.take(others_N), chosen_N


def free_idle(store: ResidualStore, least: int) -> int:
    """Frees slots of rows of which nothing is held and that the step does not name, `least` of them or an eighth of all
    if that is more, so that many steps share the cost. Returns how many were freed."""
    idle_N = store.idle(max(least, store.max_rows // AT_ONCE))
    store.release(idle_N)
    return len(idle_N)
