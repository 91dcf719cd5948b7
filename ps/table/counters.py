"""The counters of a table. `ps.counting` says what is made from these declarations."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ps.counting import counter, figure
from ps.kept import KeptState


@dataclass
class Counters:
    """One table's counters since it was created. Used by the engine thread."""

    pushes: int = figure("Pushes of the table that this shard has applied.", "pushes")
    rows_read: int = counter("Rows read by pulls.")
    rows_pushed: int = counter("Ids that pushes named, whether their gradients were sent or held back.", "ids")
    rows_updated: int = counter("Rows updated by pushes.")
    rows_created: int = counter("Rows created.")
    rows_refused: int = counter("Ids without a row whose gradient was dropped: not admitted.", "ids")
    rows_nonfinite: int = counter("Rows that an update has left with infinity or NaN, each time; the log names them.")
    rows_clamped: int = counter("Rows of half precision with values cut to 65504, each time; the log says so.")
    rows_evicted: int = counter("Rows dropped because there were more important ones.")
    rows_expired: int = counter("Rows dropped by age.")
    rows_raised: int = counter("Rows that came up from disk.")
    rows_demoted: int = counter("Rows that went down to disk.")
    rows_on_time: int = counter("Rows that a prepare brought up from disk.")
    rows_late: int = counter("Rows read from disk while a pull or a push waited: misses on the critical path.")
    rows_narrowed: int = counter("Rows that became half precision, in RAM.")
    rows_widened: int = counter("Rows of half precision that became float32.")
    rows_in_cores: int = counter(
        "Gradients of ids without a row that trained the cores of a tensor-train table.", "gradients"
    )
    rows_folded: int = counter("Rows folded back into the cores of a tensor-train table.")
    rows_kept: int = counter("Rows that could not be folded within the tolerance, and stay exact.")
    fold_error: float = counter("Relative errors of rows that were folded, added up.", "ratio")
    largest_fold_error: float = figure("The largest relative error of a row that was folded.", "ratio")

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return asdict(self)

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        vars(self).update(state)
