"""The arithmetic on arrays, in numba. `ps.kernels.reference` has the same functions in plain numpy: the specification.

A compiled kernel is kept, and compiled again when its file changes or a file that it imports (`ps.kernels.cache`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ps.kernels import cache

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

cache.register()


def warm_up() -> None:
    """Loads (or, the first time on a machine, compiles) every kernel, so that no request waits for it.

    Takes about a second from the cache and about a minute without one: `ps.server.compiling` says so to who waits.
    Kernels are compiled per array type: read-only arrays, as they come from the wire, are a type of their own.
    """
    import numpy as np

    from ps.kernels.index import bloom, hashing, unique
    from ps.kernels.index.index import IdIndex
    from ps.kernels.rows import init, records, rows
    from ps.kernels.updates import optim

    f32 = np.float32
    ids = np.arange(4)
    frozen_ids = np.frombuffer(ids.tobytes(), np.int64)
    grads = np.zeros((4, 2), f32)
    frozen_grads = np.frombuffer(grads.tobytes(), f32).reshape(4, 2)
    arena = np.zeros((8, 6), f32)
    slots = np.arange(4)
    index = IdIndex()
    for some_ids in (ids, frozen_ids):
        index.find_or_insert(some_ids, np.arange(4), slots)
        index.find(some_ids, slots)
        index.reslot(some_ids, slots)
        unique.unique(some_ids)
        unique.has_duplicates(some_ids)
        hashing.partitions(some_ids, np.empty(4, np.int32))
        hashing.hash_ids(some_ids, np.empty(4, np.uint64))
        rows.gather_or_init(arena, slots, some_ids, np.uint64(0), init.UNIFORM, f32(0), f32(1), grads)
        init.init_rows(some_ids, np.uint64(0), init.UNIFORM, f32(0), f32(1), arena[:4, :2])
        index.erase(some_ids, slots)
        bloom.add(np.zeros(8, np.uint64), some_ids)
        bloom.may_contain(np.zeros(8, np.uint64), some_ids, np.zeros(4, np.bool_))
        keys = np.zeros((4, records.KEY_BYTES), np.uint8)
        records.encode_keys(some_ids, keys)
    index.close()
    _warm_up_records(keys)
    _warm_up_policy(frozen_grads)
    _warm_up_score()
    _warm_up_half()
    _warm_up_tensor_train()
    _warm_up_encodings()
    slots = np.arange(4)
    rows.pop_free(slots.copy(), rows.push_free(slots.copy(), -1, slots), slots[:0])
    hashing.group(np.zeros(4, np.int32), 1)
    rows.gather(arena, slots, grads)
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


def _warm_up_records(keys: npt.NDArray[np.uint8]) -> None:
    """Those of rows on disk: what is written is copied into order first, what is read comes read-only off the disk."""
    import numpy as np

    from ps.kernels.rows import records

    ids, scores, stamps = np.arange(4), np.zeros(4, np.float32), np.zeros(4, np.uint32)
    rows, values = np.zeros((4, 8), np.uint8), np.zeros((4, 8 + records.HEADER_BYTES), np.uint8)
    records.encode_values(ids, scores, stamps, rows, values)
    frozen_values = np.frombuffer(values.tobytes(), np.uint8).reshape(values.shape)
    records.decode_values(ids, frozen_values, scores, stamps, rows, np.zeros(4, np.bool_))
    records.decode_keys(np.frombuffer(keys.tobytes(), np.uint8).reshape(keys.shape), ids)


def _warm_up_policy(frozen_grads: npt.NDArray[np.float32]) -> None:
    """Those of admission and importance; gradients come off the wire."""
    import numpy as np

    from ps.kernels.ranking import admission
    from ps.kernels.rows import attribution

    sketch, counts, numbers = np.zeros((2, 4, 2), np.uint16), np.zeros(4, np.uint32), np.zeros(4, np.uint64)
    ids = np.arange(4)
    admission.estimate(sketch, ids, counts)
    admission.add(sketch, ids, counts)
    admission.draw(np.uint64(0), ids, numbers)
    arena, slots = np.zeros((8, 6), np.float32), np.arange(4)
    for grads in (frozen_grads, frozen_grads.copy()):
        attribution.attribute(arena, slots, grads, np.zeros(4, np.float32))


def _warm_up_score() -> None:
    """All arrays are a table's own."""
    import numpy as np

    from ps.kernels.ranking import score

    statistics, marks, slots = np.zeros((8, 2), np.uint32), np.zeros(8, np.uint16), np.arange(4)
    counts, one = np.zeros(score.RANKS, np.int64), np.ones(4, np.float32)
    ages, epochs = counts.reshape(1, -1), np.zeros(0, np.int64)
    lots = np.zeros((1, score.RANKS, score.LOTS), np.int32)
    cuts = (*(np.zeros(1, np.int64),) * 2, *(np.zeros((score.LOTS, 0), np.int64),) * 2)
    scores, decay = statistics.view(np.float32), score.decay_table()
    per_tick = score.stamps_per_tick(score.HALF_LIFE)
    for lots_or_none in (lots, None):
        score.count(statistics, 1, per_tick, counts, ages, lots_or_none, epochs, 0)
        score.touch(
            *(statistics, scores, marks, slots, one, np.uint32(0), per_tick),
            *(decay, np.float32(0), np.uint32(0), 0, counts, ages, lots_or_none, epochs, 0),
        )
    score.ranks(statistics, per_tick, np.zeros(8, np.int64))
    score.outrank(statistics, slots, per_tick, 0, np.zeros(4, np.bool_))
    score.select(statistics, marks, 0, 8, 0, per_tick, slots.copy())
    score.met(statistics, per_tick, *cuts, np.zeros(8, np.bool_))
    score.select_met(statistics, marks, 0, 8, per_tick, *cuts, slots.copy())
    score.mark(marks, slots, score.COPIED, score.DIRTY)
    score.pin(marks, slots, 1)


def _warm_up_half() -> None:
    """Rows of half precision are a table's own, and so are copies of what is written into them."""
    import numpy as np

    from ps.kernels.rows import half, places

    cold, wide, slots, ids = np.zeros((8, 6), np.uint16), np.zeros((4, 6), np.float32), np.arange(4), np.arange(4)
    half.widen(cold, slots, wide, 2, 4)
    half.gather_half(cold, slots, wide[:, :2].copy())
    half.narrow(wide, slots, cold, 2, 4)
    half.narrow(np.frombuffer(wide.tobytes(), np.float32).reshape(4, 6), slots, cold, 6, 0)  # values off the wire
    places.split(np.zeros(8, np.uint32), slots, slots.copy(), slots.copy())
    places.move(np.zeros(8, np.uint32), 8, np.uint32(0), 0, np.zeros(2, np.uint32))
    half.narrow_stochastic(wide, slots, cold, 2, 4, np.uint64(0), np.uint64(0), ids)


def _warm_up_tensor_train() -> None:
    """Cores are a table's own; gradients of rows come off the wire, or are added up first."""
    import numpy as np

    from ps.kernels import tensor_train

    left, middle, right = np.zeros((1, 1, 2), np.float32), np.zeros((1, 4), np.float32), np.zeros((1, 1, 2), np.float32)
    grads, some = np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32)
    dims, digits, starts = (1, 2, 1, 2, 1), np.zeros(1, np.int64), np.zeros(2, np.int64)
    pairs = tensor_train.order_pairs(digits, 1, digits, 1, digits.copy(), digits.copy(), digits.copy(), starts)
    tensor_train.pairs_forward(left, middle, dims, digits, digits, 0, pairs, some)
    tensor_train.pairs_backward(left, middle, dims, digits, digits, 0, pairs, some, digits, digits, some, middle)
    rows = left, middle, right, dims, digits, digits, starts, digits, digits, 0, pairs
    tensor_train.forward(*rows, grads)
    for some_grads in (grads, np.frombuffer(grads.tobytes(), np.float32).reshape(1, 1)):
        tensor_train.backward(*rows, some_grads, digits, digits, digits, some, middle, some)


def _warm_up_encodings() -> None:
    """What is sent is a trainer's own or read-only, what comes off the wire read-only."""
    import numpy as np

    from ps.kernels.packing import deltas, fields, packing
    from ps.kernels.rows import half

    def frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return np.frombuffer(array.tobytes(), array.dtype)

    values, words, ends = np.ones(4, np.float32), np.zeros(1, np.uint64), np.full(1, 4)
    items, scales, groups = np.ones(4, np.int8), np.ones(1, np.float32), np.zeros(deltas.most_bytes(4), np.uint8)
    for ids in (np.arange(4), frozen(np.arange(4))):
        packing.set_bits(ids, 4, np.zeros(1, np.uint64))
        size = deltas.encode(ids, groups)
    deltas.decode(groups, size, 0, np.arange(4))
    for some_values in (values, frozen(values)):
        packing.count_nonzero(some_values)
        packing.all_below(some_values, np.float32(2))
        packing.mask(some_values, np.float32(1), values.copy())
        packing.pack(some_values, words, values.copy())
        packing.unpack(words, some_values, values)
        packing.quantize(some_values, ends, scales, items)
    _warm_up_bags(values)
    fields.count_fields(frozen(items).view(np.uint8), np.full((1, 2), fields.LEAF), 0, 1, np.zeros(2, np.int64))
    packing.find_bits(words, np.arange(4))
    packing.ends_of_rows(words, 4, ends)
    packing.dequantize(frozen(items), ends, frozen(scales), values)
    half.widen(frozen(np.zeros(4, np.uint16)).reshape(1, 4), np.zeros(1, np.int64), np.zeros((1, 4), np.float32), 4, 0)


def _warm_up_bags(values: npt.NDArray[np.float32]) -> None:
    """Structures are decoded first; gradients come off the wire, or are decoded too."""
    import numpy as np

    from ps.kernels.rows import bags

    rows, starts, positions = values.reshape(2, 2), np.array([0, 1]), np.zeros(1, np.int32)
    bags.pool(rows, starts, positions, np.empty((1, 2), np.float32))
    for grads in (values[:2].reshape(1, 2), np.frombuffer(values[:2].tobytes(), np.float32).reshape(1, 2)):
        bags.spread(grads, starts, positions, np.zeros(1, np.int64), rows.copy(), np.zeros(2, np.bool_))
    bags.add_at(rows[:1], np.zeros(1, np.int64), rows.copy())
    bags.put_numbers(starts, 1, np.zeros(2, np.uint64))
    bags.get_numbers(np.zeros(2, np.uint64), 1, starts.copy())
    bags.get_numbers(np.zeros(2, np.uint64), 1, positions.copy())
