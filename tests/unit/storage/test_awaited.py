"""Whoever holds ids holds their rows, wherever they come from and go to: against a dict of how many hold each id."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.kernels.ranking import score
from ps.kernels.updates.optim import update_rule
from ps.storage.budget.budget import RamBudget
from ps.storage.ram.arena import Arena
from ps.storage.ram.rows import PlainRows

ids = st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=12)
moves = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hold", "insert", "discard", "release"]), ids),
        st.tuples(st.sampled_from(["let go", "shrink"]), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(moves)
def test_a_row_is_pinned_as_often_as_its_id_is_held(made: list[tuple[str, object]]) -> None:
    config = ps.TableConfig(name="t", dim=2)
    budget = RamBudget(ps.ServiceConfig())
    arena = Arena(PlainRows(config, update_rule(config.optimizer, 2), budget.arrays), budget)
    holders: list[np.ndarray] = []
    try:
        for what, given_ in made:
            if what == "let go":
                if holders:
                    ids_N = holders.pop(given_ % len(holders))  # type: ignore[operator]
                    arena.let_go(ids_N, arena.find(ids_N))
            elif what == "shrink":
                arena.shrink(len(arena), rebuild=bool(given_ % 2))  # type: ignore[operator]
            else:
                ids_N = np.array(given_, np.int64)
                slots_N = arena.find(ids_N)
                if what == "hold":
                    arena.hold(ids_N, slots_N)
                    holders.append(ids_N)
                elif what == "insert":
                    arena.insert(ids_N[slots_N < 0], 0)
                elif what == "discard":
                    arena.discard(ids_N)
                else:
                    arena.release(slots_N[slots_N >= 0])
            check(arena, Counter(np.concatenate([[], *holders]).astype(int).tolist()))
    finally:
        arena.close()


def check(arena: Arena, held: Counter[int]) -> None:
    all_ids_N = np.arange(31)
    slots_N = arena.find(all_ids_N)
    pins_N = np.where(slots_N >= 0, arena.marks_S[slots_N] // score.PIN, 0)
    assert pins_N.tolist() == [held[id_] if slots_N[id_] >= 0 else 0 for id_ in range(31)]
    assert len(arena._awaited) == sum(slots_N[id_] < 0 for id_ in held)
