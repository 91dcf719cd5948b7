"""The RPCs that change rows: Push, Write, Remove and ReportImportance. They raise PsError; `ps.server.gate.dispatch`
turns it into a status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import xxhash

from ps.errors import InvalidArgument
from ps.seconds import LONGEST_S
from ps.server import body, inbound
from ps.server.gate.dispatch import ServedCall
from ps.server.handlers.service import ShardService
from ps.server.later import Later
from ps.shard.ledger import WriteId
from ps.shard.requests import PushResult
from ps.shard.writes.assign import Assign
from ps.shard.writes.push import say
from ps.shard.writes.remove import Remove
from ps.shard.writes.report import Report
from ps.shard.writes.upsert import Upsert
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, requests
from ps.wire.unpacking import unpacked_bytes

NOBODY = WriteId(0, 0, 0)
"""The worker and sequence of a write of which only the digest is wanted, which does not depend on them."""


class Writes:
    """The writes of one shard."""

    def __init__(self, service: ShardService) -> None:
        self._service, self._shard, self._config = service, service.shard, service.config

    def push(self, chunks: Iterator[bytes], call: ServedCall) -> bytes | Later:
        """Serves Embedding.Push. The answer of a push in a round comes later."""
        first, payload = requests.split(pb.PushChunk, _first(chunks))
        head = first.head
        call.received.said(head)
        self._service.check(head.header, step=head.step.step, sequence=head.sequence)
        place = inbound.place_of(head)
        group = "" if place is None else place.group
        with ExitStack() as held:
            arriving = held.enter_context(self._shard.arrivals.body())
            with self._shard.rounds.give_way(group):
                arriving.hold_ahead(unpacked_bytes(head.ids.tables))
            ahead = held.enter_context(self._shard.look_ahead(self._service.target(head), call.caller))
            ids_digest = _ids_digest(head)
            digest = xxhash.xxh3_128()
            reader = body.BodyReader(head.tables, self._config.limits.max_body_bytes, digest.update)
            say(ids_digest, place, reader.heads, digest.update)
            with self._shard.rounds.give_way(group):
                gradients = body.read_body(chunks, payload, reader, arriving)
                if place is not None:  # its share of what they are summed up in
                    arriving.hold(sum(4 * shape.rows * shape.dim for shape in head.tables))
            write = WriteId(head.header.worker_id, head.sequence, digest.intdigest())
            if place is None:
                return _pushed(self._shard.push(write, ahead, gradients, head.pulled_version, ids_digest))
            wait_s = min(head.wait_ms / 1000, LONGEST_S)
            waiting = self._shard.rounds.join(
                place, wait_s, write, ahead, gradients, head.pulled_version, call.caller, arriving.held, ids_digest
            )
            expire, give_up = (
                partial(self._shard.rounds.expire, waiting),
                partial(self._shard.rounds.leave, waiting),
            )
            return Later(waiting.outcome, _pushed, wait_s, expire, give_up, held.pop_all())

    def write(self, chunks: Iterator[bytes], call: ServedCall) -> bytes:
        """Serves Embedding.Write."""
        first, payload = requests.split(pb.WriteChunk, _first(chunks))
        head = first.head
        call.received.said(head)
        self._service.check(head.header, sequence=head.sequence)
        operations = {
            pb.WRITE_MODE_UPSERT: (Upsert, self._shard.upsert),
            pb.WRITE_MODE_ASSIGN: (Assign, self._shard.assign),
        }
        if head.mode not in operations:
            raise InvalidArgument(f"write mode {head.mode}: this version knows {sorted(operations)}")
        kind, operation = operations[head.mode]
        reader = body.BodyReader([head.shape], self._config.limits.max_body_bytes)
        with self._shard.arrivals.body() as arriving:
            with self._shard.rounds.give_way():
                arriving.hold_ahead(unpacked_bytes([head.ids]))
                (values,) = body.read_body(chunks, payload, reader, arriving)
            ids = inbound.table_ids(head.ids, self._config.limits.max_ids)
            write = WriteId(head.header.worker_id, head.sequence, kind(NOBODY, ids, values.blocks).digest())
            result = operation(write, ids, values.blocks, call.caller)
        answer = pb.WriteResponse(version=result.version, existed=codec.encode_flags(result.existed_N))
        call.sent.said(answer)
        return answer.SerializeToString()

    def remove(self, data: bytes, call: ServedCall) -> bytes:
        """Serves Embedding.Remove."""
        request = requests.parse(pb.RemoveRequest, data)
        call.received.said(request)
        self._service.check(request.header, sequence=request.sequence)
        with self._service.unpacked([request.ids]):
            ids = inbound.table_ids(request.ids, self._config.limits.max_ids)
            statistics_N2 = codec.decode_statistics(request.statistics, len(ids.ids_N)) if request.statistics else None
            digest = Remove(NOBODY, ids, statistics_N2).digest()
            write = WriteId(request.header.worker_id, request.sequence, digest)
            result = self._shard.remove(write, ids, statistics_N2, call.caller)
        answer = pb.RemoveResponse(version=result.version, existed=codec.encode_flags(result.existed_N))
        call.sent.said(answer)
        return answer.SerializeToString()

    def report_importance(self, data: bytes, call: ServedCall) -> bytes:
        """Serves Embedding.ReportImportance."""
        request = requests.parse(pb.ReportImportanceRequest, data)
        call.received.said(request)
        self._service.check(request.header, sequence=request.sequence)
        with self._service.unpacked([request.ids]):
            ids = inbound.table_ids(request.ids, self._config.limits.max_ids)
            scores_N = codec.decode_scores(request.scores)
            write = WriteId(request.header.worker_id, request.sequence, Report(NOBODY, ids, scores_N).digest())
            result = self._shard.report_importance(write, ids, scores_N, call.caller)
        existed = codec.encode_flags(result.existed_N)
        answer = pb.ReportImportanceResponse(version=result.version, existed=existed)
        call.sent.said(answer)
        return answer.SerializeToString()


def _ids_digest(head: pb.PushHead) -> int:
    """Returns a digest that is the same for a push that sends its ids and for a retry that names its step, and the
    other way round."""
    if head.WhichOneof("what") == "step":
        return head.ids_digest
    return codec.digest_ids(head.ids)


def _pushed(result: PushResult) -> bytes:
    return pb.PushResponse(
        version=result.version, staleness=result.staleness, repeated=result.repeated
    ).SerializeToString()


def _first(chunks: Iterator[bytes]) -> bytes:
    try:
        return next(chunks)
    except StopIteration:
        raise InvalidArgument("the stream ended before its first message") from None
