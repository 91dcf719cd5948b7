"""What a shard does when RAM is short: requests that can never fit are told so, prepared steps may hold only a share,
and a request that is refused leaves room behind for its next attempt.

Called by the engine thread only. Nothing here changes a value: a refused request has changed nothing, and where rows
are is nobody's business but the clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.shard.steps import Resolved, Steps

STEPS_SHARE = 2
"""Prepared steps may hold one row in so many of those that fit in RAM: a push by ids must find the rest."""


class Pressure:
    """One shard's."""

    def __init__(self, steps: Steps, maintain: Callable[[], None]) -> None:
        self._steps = steps
        self._maintain = maintain

    def check_steps(self, tables: Sequence[Resolved]) -> None:
        """Raises ResourceExhausted when prepared steps would hold too many rows with these. A prepare is a hint: pull
        and push then carry the ids themselves."""
        for resolved in tables:
            held, more = self._steps.rows(resolved.ids.table), len(resolved.ids.ids_N)
            most = resolved.table.most_in_ram // STEPS_SHARE
            if held + more > most:
                raise ResourceExhausted(
                    f"table {resolved.ids.table!r}: prepared steps hold {held:,} rows, this one has {more:,}, and they "
                    f"may keep {most:,} in RAM (half of what ram_bytes leaves room for)"
                )

    @contextmanager
    def relieved(self, tables: Sequence[Resolved], let_go: Callable[[], None]) -> Iterator[None]:
        """A request that needs rows of these tables in RAM. When it is refused, what it holds is let go, and rows begin
        to go down until it will fit. One that does not fit into the whole room is told so instead."""
        try:
            for resolved in tables:
                self._check_fits(resolved)
            yield
        except ResourceExhausted as error:
            let_go()
            if error.retry_after_s is not None:
                self._make_room(tables)
            raise

    def _check_fits(self, resolved: Resolved) -> None:
        rows, most = len(resolved.ids.ids_N), resolved.table.most_in_ram
        if resolved.table.has_disk and rows > most:
            raise ResourceExhausted(
                f"table {resolved.ids.table!r}: {rows:,} rows at once, and ram_bytes leaves room for {most:,}: send "
                "fewer ids at once, or raise ram_bytes"
            )

    def _make_room(self, tables: Sequence[Resolved]) -> None:
        for resolved in tables:
            rows = len(resolved.ids.ids_N)
            resolved.table.ask_room(rows)
            self._steps.shed(resolved.ids.table, resolved.table.most_in_ram - rows)
        self._maintain()
