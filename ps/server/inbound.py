"""Decodes requests: turns ids, step handles and rounds of messages into what the shard takes."""

from __future__ import annotations

from ps.config import check_table_name
from ps.errors import InvalidArgument, ResourceExhausted
from ps.round import Round
from ps.shard import StepRef, TableIds
from ps.shard.requests import Bags
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.bags import decode_bags
from ps.wire.sorted_ids import decode_sorted_ids
from ps.wire.unpacking import count_ids


def table_ids(message: pb.TableIds, max_ids: int) -> TableIds:
    """Returns ids and counts of one table, for a write; raises ResourceExhausted above the limit."""
    if message.bags:
        raise InvalidArgument(f"table {message.table!r}: bags are for steps; a write is of rows")
    (part,) = id_set(pb.IdSet(tables=[message]), max_ids)
    return part


def id_set(message: pb.IdSet, max_ids: int) -> list[TableIds]:
    """Returns ids, counts and bags of all tables; raises ResourceExhausted above the limit."""
    total = sum(map(count_ids, message.tables))
    if total > max_ids:
        raise ResourceExhausted(
            f"{total:,} ids in one request, the limit is {max_ids:,} (limits.max_ids): send fewer at once"
        )
    return [_table_ids(part) for part in message.tables]


def _table_ids(message: pb.TableIds) -> TableIds:
    check_table_name(message.table)
    if message.ids and message.sorted_ids:
        raise InvalidArgument(f"table {message.table!r}: ids are sent twice, as they are and sorted")
    ids_N = decode_sorted_ids(message.sorted_ids) if message.sorted_ids else codec.decode_ids(message.ids)
    bags = Bags(*decode_bags(message.bags, len(ids_N))) if message.bags else None
    return TableIds(
        message.table, ids_N, codec.decode_counts(message.counts, len(ids_N)), bags, message.sorted_ids or None
    )


def step_ref(header: pb.Header, ref: pb.StepRef, ids_digest: int = 0) -> StepRef:
    """Returns the handle of a worker's step, under the routing table of the request."""
    return StepRef(header.worker_id, ref.step, header.routing_epoch, ids_digest)


def place_of(head: pb.PushHead) -> Round | None:
    """Returns the round that a push is part of, None if there is none; raises InvalidArgument."""
    if not head.HasField("round"):
        return None
    return Round(head.round.group, head.round.number, head.round.rank, head.round.ranks)
