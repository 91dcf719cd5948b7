"""Ids and bags in few bits: how much they take is known before they are unpacked, and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.errors import ResourceExhausted
from ps.server.inbound import id_set
from ps.v1 import embedding_pb2 as pb
from ps.wire.bags import decode_bags, encode_bags
from ps.wire.bags import unpacked_bytes as bags_bytes
from ps.wire.sorted_ids import encode_sorted_ids
from ps.wire.unpacking import SPARE_BYTES, UNPACKED_TIMES, unpacked_bytes

MB = 1 << 20


def of_ids(ids_N: np.ndarray) -> pb.TableIds:
    return pb.TableIds(table="t", sorted_ids=encode_sorted_ids(ids_N))


@given(arrays.arrays(np.int64, st.integers(1, 50), elements=st.integers(1, 40)), st.integers(1, 300))
def test_what_bags_take_is_known_before(lengths_R: np.ndarray, n_ids: int) -> None:
    data = encode_bags(lengths_R, np.arange(lengths_R.sum()) % n_ids, n_ids)
    starts_K, positions_P = decode_bags(data, n_ids)
    slack = 4 * 8 + 8  # bits of the last byte; starts are one more than there are bags
    assert starts_K.nbytes + positions_P.nbytes <= bags_bytes(data, n_ids) + slack
    assert bags_bytes(data, n_ids) <= starts_K.nbytes + positions_P.nbytes + slack


@given(st.binary(max_size=60), st.integers(0, 300))
def test_nor_do_any_other_bytes_take_more(data: bytes, n_ids: int) -> None:
    assert 0 <= bags_bytes(data, n_ids) <= 66 * len(data)


def test_dense_ids_are_unpacked_as_far_as_there_is_room() -> None:
    few, many = of_ids(np.arange(250_000)), of_ids(np.arange(400_000))
    assert unpacked_bytes([few]) == 16 * 250_000
    assert len(id_set(pb.IdSet(tables=[few]), 10**6)[0].ids_N) == 250_000
    with pytest.raises(ResourceExhausted, match="name fewer ids at once"):
        unpacked_bytes([many])
    with pytest.raises(ResourceExhausted):
        unpacked_bytes([few] * 2)


def test_ids_as_they_are_and_ids_of_a_hash_always_fit() -> None:
    ids_N = np.unique(np.random.default_rng(0).integers(0, 2**62, 100_000))
    for part in (of_ids(ids_N), pb.TableIds(table="t", ids=ids_N.tobytes(), counts=bytes(len(ids_N)))):
        assert unpacked_bytes([part] * 10) <= SPARE_BYTES + UNPACKED_TIMES * 10 * part.ByteSize()


@pytest.mark.parametrize("n_ids", [2**17, 2**9, 40])
def test_so_do_bags_of_more_than_a_few_ids(n_ids: int) -> None:
    lengths_R = np.random.default_rng(0).integers(1, 20, 100_000)
    data = encode_bags(lengths_R, np.arange(lengths_R.sum()) % n_ids, n_ids)
    part = pb.TableIds(table="t", ids=np.arange(n_ids).tobytes(), bags=data)
    assert unpacked_bytes([part] * 26)


def test_bags_of_nothing_are_refused() -> None:
    count = 8 * MB * 8 // 2
    data = count.to_bytes(4, "little") + b"\x01" + bytes(count // 4)
    with pytest.raises(ResourceExhausted, match="unpack to"):
        unpacked_bytes([pb.TableIds(table="t", ids=bytes(8), bags=data)])
