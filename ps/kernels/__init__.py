"""The arithmetic on arrays, in numba. `ps.kernels.reference` has the same functions in plain numpy: the specification.

A compiled kernel is kept beside its file and compiled again when that file changes. It is not when only a helper that
it takes from another file does: after a change to `hashing` or `prefetch`, run `make clean`.
"""

from __future__ import annotations


def warm_up() -> None:
    """Loads (or, the first time on a machine, compiles) every kernel, so that no request waits for it.

    Takes about a second from the cache and half a minute without one. Kernels are compiled per array type: read-only
    arrays, as they come from the wire, are a type of their own.
    """
    import numpy as np

    from ps.kernels import half, hashing, init, optim, rows, unique
    from ps.kernels.index import IdIndex

    f32 = np.float32
    ids = np.arange(4)
    frozen_ids = np.frombuffer(ids.tobytes(), np.int64)
    grads = np.zeros((4, 2), f32)
    frozen_grads = np.frombuffer(grads.tobytes(), f32).reshape(4, 2)
    counts = np.ones(4, np.uint32)
    frozen_counts = np.frombuffer(counts.tobytes(), np.uint32)
    arena = np.zeros((8, 6), f32)
    slots = np.arange(4)
    index = IdIndex()
    for some_ids in (ids, frozen_ids):
        index.find_or_insert(some_ids, np.arange(4), slots)
        index.find(some_ids, slots)
        unique.unique(some_ids)
        unique.has_duplicates(some_ids)
        hashing.partitions(some_ids, np.empty(4, np.int32))
        hashing.hash_ids(some_ids, np.empty(4, np.uint64))
        rows.gather_or_init(arena, slots, some_ids, np.uint64(0), init.UNIFORM, f32(0), f32(1), grads)
        init.init_rows(some_ids, np.uint64(0), init.UNIFORM, f32(0), f32(1), arena[:4, :2])
        index.erase(some_ids, slots)
    index.close()
    slots = np.arange(4)
    rows.pop_free(slots.copy(), rows.push_free(slots.copy(), -1, slots), slots[:0])
    hashing.group(np.zeros(4, np.int32), 1)
    for some_counts in (counts, frozen_counts):
        rows.add_counts(np.zeros(8, np.uint32), slots, some_counts)
    for some_grads in (grads, frozen_grads):
        rows.all_finite(some_grads.reshape(-1))
        rows.scatter(arena, slots, some_grads)
        rows.place(some_grads, slots, grads.copy())
        rows.take(some_grads, slots, grads.copy())
        unique.segment_sum(some_grads, slots, grads.copy())
        optim.update_sgd(arena, slots, some_grads, f32(0))
        optim.update_adagrad(arena, slots, some_grads, f32(0), f32(1))
        optim.update_rowwise_adagrad(arena, slots, some_grads, f32(0), f32(1))
        optim.update_adam(arena, slots, some_grads, 0.0, 0.9, 0.9, 1.0, 1)
        optim.update_ftrl(arena, slots, some_grads, f32(1), f32(1), f32(0), f32(0))
    cold, wide = np.zeros((8, 6), np.uint16), np.zeros((4, 6), f32)
    half.widen(cold, slots, wide, 2, 4)
    half.gather_half(cold, slots, grads)
    half.narrow(wide, slots, cold, 2, 4)
    half.narrow(frozen_grads, slots, cold, 2, 0)
    for some_ids in (ids, frozen_ids):
        half.narrow_stochastic(wide, slots, cold, 2, 4, np.uint64(0), np.uint64(0), some_ids)
