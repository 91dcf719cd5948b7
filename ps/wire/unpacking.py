"""Computes the memory that the ids of a request take once they are unpacked, before they are.

An id that is sent as a gap takes a bit, and eight bytes when it is read; so does a position in a bag. So a message
could ask for a hundred times its bytes. It is allowed SPARE_BYTES, and UNPACKED_TIMES its own bytes in addition; and
the memory is counted among the messages under way for as long as the call lasts (`ps.storage.budget.budget`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ps.errors import ResourceExhausted
from ps.v1 import embedding_pb2 as pb
from ps.wire.bags import unpacked_bytes as bags_bytes
from ps.wire.sorted_ids import sorted_count

SPARE_BYTES = 4 << 20
"""Room for a quarter of a million ids of a bit each."""
UNPACKED_TIMES = 6
"""Ids of 22 bits or more each stay below this, however many they are. So do bags of more than a few different ids."""
BYTES_EACH = 16
"""Bytes of an unpacked id and its slot."""


def count_ids(message: pb.TableIds) -> int:
    """Returns how many ids a table's part of a message announces."""
    return len(message.ids) // 8 + sorted_count(message.sorted_ids)


def unpacked_bytes(tables: Iterable[pb.TableIds]) -> int:
    """Returns the bytes that ids, counts, bags and slots of these tables take. Raises ResourceExhausted if that is too
    much for the size of the message."""
    sent, total = _sizes(tables)
    most = SPARE_BYTES + UNPACKED_TIMES * sent
    if total > most:
        raise ResourceExhausted(
            f"ids and bags in {sent:,} bytes unpack to {total:,} (16 an id), and {most:,} is the most for them: name "
            "fewer ids at once, or send them as they are (compress_ids=False)"
        )
    return total


def may_be_unpacked(tables: Iterable[pb.TableIds]) -> bool:
    """Returns whether a shard would unpack these tables if they came as one message."""
    sent, total = _sizes(tables)
    return total <= SPARE_BYTES + UNPACKED_TIMES * sent


def _sizes(tables: Iterable[pb.TableIds]) -> tuple[int, int]:
    """Returns (bytes as they are sent, bytes when they are unpacked)."""
    sent = total = 0
    for part in tables:
        n = count_ids(part)
        sent += len(part.ids) + len(part.sorted_ids) + len(part.counts) + len(part.bags)
        total += BYTES_EACH * n + 4 * len(part.counts) + bags_bytes(part.bags, n)
    return sent, total
