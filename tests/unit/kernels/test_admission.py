"""The sketch and the lots: equal to the numpy specification, and what they promise."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.ranking import admission as kernels
from ps.kernels.reference.ranking import admission as reference

from .strategies import frozen, given, id_arrays, same_bytes, seeds

additions = st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 7, 60_000, 2**32 - 1])), max_size=60)


def cells(blocks=2, width=8):
    return np.zeros((blocks, kernels.ROWS, width), np.uint16)


@given(additions, id_arrays, seeds)
def test_add_estimate_and_draw_are_those_of_the_reference(added, asked_N, key):
    ids_N = np.array([id_ for id_, _ in added], np.int64)
    counts_N = np.array([count for _, count in added], np.uint32)
    results = []
    for module, wire in ((kernels, np.copy), (reference, frozen)):
        sketch = cells()
        module.add(sketch, wire(ids_N), wire(counts_N))
        found_N, drawn_N = np.empty(len(asked_N), np.uint32), np.empty(len(asked_N), np.uint64)
        module.estimate(sketch, wire(asked_N), found_N)
        module.draw(key, wire(asked_N), drawn_N)
        results.append((sketch, found_N, drawn_N))
    for left, right in zip(*results, strict=True):
        assert same_bytes(left, right)


@given(additions, st.lists(st.integers(0, 1), max_size=3))
def test_a_count_is_never_too_low_also_when_halved(added, halved):
    sketch, true = cells(), dict.fromkeys(range(31), 0)
    for id_, count in added:
        kernels.add(sketch, np.array([id_]), np.array([count], np.uint32))
        true[id_] += count
    alone_N = np.empty(31, np.uint32)
    for block in halved:
        before = {id_: block_of(id_) for id_ in true}
        sketch[block] >>= 1
        true = {id_: count >> 1 if before[id_] == block else count for id_, count in true.items()}
    kernels.estimate(sketch, np.arange(31), alone_N)
    cap = kernels.MAX_COUNT >> len(halved)  # one that stopped at the most may have lost as much as it was halved
    assert all(alone_N[id_] >= min(count, cap) for id_, count in true.items())


def block_of(id_):
    """The block that an id's cells are in."""
    sketch = cells()
    kernels.add(sketch, np.array([id_]), np.ones(1, np.uint32))
    (block,) = np.unique(np.nonzero(sketch)[0])
    return block


def test_with_room_enough_counts_are_right():
    sketch, ids_N = cells(64, 1 << 10), np.arange(5000) * 4096  # ids that differ in high bits only
    kernels.add(sketch, ids_N, (ids_N % 7 + 1).astype(np.uint32))
    found_N = np.empty(10_000, np.uint32)
    kernels.estimate(sketch, np.arange(10_000) * 4096, found_N)
    wrong = (found_N[:5000] != ids_N % 7 + 1).mean() + (found_N[5000:] > 0).mean()
    assert wrong < 0.01


def test_lots_are_even_and_another_key_draws_others():
    drawn = [np.empty(100_000, np.uint64) for _ in range(2)]
    for key, out_N in enumerate(drawn):
        kernels.draw(np.uint64(key), np.arange(100_000), out_N)
    for out_N in drawn:
        assert abs((out_N < np.uint64(1 << 61)).mean() - 1 / 8) < 0.005
    both = (drawn[0] < np.uint64(1 << 61)) & (drawn[1] < np.uint64(1 << 61))
    assert abs(both.mean() - 1 / 64) < 0.005
