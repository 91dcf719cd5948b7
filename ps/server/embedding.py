"""The RPCs of a shard: decode, ask the shard, encode. Raises PsError; `ps.server.gate.dispatch` turns it into a
status."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import xxhash
from google.protobuf.message import Message

from ps import __version__
from ps.config import ServiceConfig, TableConfig
from ps.errors import InvalidArgument, StaleRouting, StateLost, Unavailable
from ps.policy.ranking import EVERY_RANK
from ps.seconds import LONGEST_S
from ps.server import inbound, outbound
from ps.server.gate.dispatch import ServedCall
from ps.server.later import Later
from ps.server.process import process_report
from ps.server.watch.logs import about_call
from ps.server.watch.metrics import RpcMetrics
from ps.shard import Shard
from ps.shard.ledger import WriteId
from ps.shard.requests import Page, PushResult, Target, Wanted
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, requests
from ps.wire.kinds import Call
from ps.wire.routing import Routing
from ps.wire.unpacking import unpacked_bytes

EXPORT_PAGE_ROWS = 65_536
EXPORT_PAGE_BYTES = 16 << 20
"""Of values. A page is copied out between two pushes, and held until it is sent."""
PAGE_ROW_BYTES = 20
"""Of a row's id, score and statistics."""


class ShardService:
    """Stateless around the shard, but for the routing table that it checks requests against.

    `state_lost` says why every call but Describe and Stats is refused; None while the rows are there.
    """

    def __init__(self, shard: Shard, routing: Routing, config: ServiceConfig, state_lost: str | None = None) -> None:
        self.shard = shard
        self.routing = routing
        self.config = config
        self.state_lost = state_lost
        self.release = __version__

    # the step protocol

    def prepare(self, data: bytes, call: ServedCall) -> bytes:
        """Embedding.Prepare."""
        request = requests.parse(pb.PrepareRequest, data)
        call.received.said(request)
        self._check(request.header, step=request.step)
        ref = inbound.step_ref(request.header, pb.StepRef(step=request.step), codec.digest_ids(request.ids))
        with self._unpacked(request.ids.tables):
            version = self.shard.prepare(ref, inbound.id_set(request.ids, self.config.limits.max_ids), call.caller)
        return pb.PrepareResponse(version=version).SerializeToString()

    def forget(self, data: bytes, call: ServedCall) -> bytes:
        """Embedding.Forget."""
        request = requests.parse(pb.ForgetRequest, data)
        call.received.said(request)
        self._check(request.header, step=request.step)
        self.shard.forget(inbound.step_ref(request.header, pb.StepRef(step=request.step)))
        return pb.ForgetResponse().SerializeToString()

    def pull(self, data: bytes, call: ServedCall) -> Iterator[bytes]:
        """Embedding.Pull."""
        request = requests.parse(pb.PullRequest, data)
        call.received.said(request)
        self._check(request.header, step=request.step.step)
        formats = outbound.formats_of(request)
        exact = all(form.exact for form in formats)
        wanted = Wanted(request.return_exists, [form.share for form in formats])
        allocate = outbound.allocate_message if exact else outbound.allocate_chunk
        with (
            self._unpacked(request.ids.tables) as held,
            self.shard.pull(self._target(request), wanted, allocate, call.caller, held) as stream,
        ):  # it ends also when the client has gone
            with self.shard.rounds_give_way():
                head = stream.head()
            message = outbound.pull_head(head)
            call.sent.said(message)
            yield pb.PullChunk(head=message).SerializeToString()
            yield from stream if exact else outbound.messages(stream, head, formats)

    def push(self, chunks: Iterator[bytes], call: ServedCall) -> bytes | Later:
        """Embedding.Push. In a round the answer comes later."""
        first, payload = requests.split(pb.PushChunk, _first(chunks))
        head = first.head
        call.received.said(head)
        self._check(head.header, step=head.step.step, sequence=head.sequence)
        place = inbound.place_of(head)
        group = "" if place is None else place.group
        with ExitStack() as held:
            arriving = held.enter_context(self.shard.arrivals.body())
            with self.shard.rounds_give_way(group):
                arriving.hold_ahead(unpacked_bytes(head.ids.tables))
            ahead = held.enter_context(self.shard.look_ahead(self._target(head), call.caller))
            said = pb.PushHead(tables=head.tables, ids_digest=_ids_digest(head))
            if place is not None:
                said.round.CopyFrom(head.round)
            digest = _digest(said)
            reader = inbound.BodyReader(head.tables, self.config.limits.max_body_bytes, digest)
            with self.shard.rounds_give_way(group):
                gradients = inbound.read_body(chunks, payload, reader, arriving)
                if place is not None:  # its share of what they are summed up in
                    arriving.hold(sum(4 * shape.rows * shape.dim for shape in head.tables))
            write = WriteId(head.header.worker_id, head.sequence, digest.intdigest())
            if place is None:
                return _pushed(self.shard.push(write, ahead, gradients, head.pulled_version, call.caller))
            wait_s = min(head.wait_ms / 1000, LONGEST_S)
            waiting = self.shard.join_round(
                place, wait_s, write, ahead, gradients, head.pulled_version, call.caller, arriving.held
            )
            expire, give_up = partial(self.shard.expire, waiting), partial(self.shard.leave_round, waiting)
            return Later(waiting.outcome, _pushed, wait_s, expire, give_up, held.pop_all())

    # explicit writes and export

    def write(self, chunks: Iterator[bytes], call: ServedCall) -> bytes:
        """Embedding.Write."""
        first, payload = requests.split(pb.WriteChunk, _first(chunks))
        head = first.head
        call.received.said(head)
        self._check(head.header, sequence=head.sequence)
        operations = {pb.WRITE_MODE_UPSERT: self.shard.upsert, pb.WRITE_MODE_ASSIGN: self.shard.assign}
        if head.mode not in operations:
            raise InvalidArgument(f"write mode {head.mode}: this version knows {sorted(operations)}")
        digest = _digest(pb.WriteHead(mode=head.mode, ids=head.ids, shape=head.shape))
        reader = inbound.BodyReader([head.shape], self.config.limits.max_body_bytes, digest)
        with self.shard.arrivals.body() as arriving:
            with self.shard.rounds_give_way():
                arriving.hold_ahead(unpacked_bytes([head.ids]))
                (values,) = inbound.read_body(chunks, payload, reader, arriving)
            write = WriteId(head.header.worker_id, head.sequence, digest.intdigest())
            ids = inbound.table_ids(head.ids, self.config.limits.max_ids)
            result = operations[head.mode](write, ids, values.blocks, call.caller)
        answer = pb.WriteResponse(version=result.version, existed=codec.encode_flags(result.existed_N))
        call.sent.said(answer)
        return answer.SerializeToString()

    def remove(self, data: bytes, call: ServedCall) -> bytes:
        """Embedding.Remove."""
        request = requests.parse(pb.RemoveRequest, data)
        call.received.said(request)
        self._check(request.header, sequence=request.sequence)
        digest = _digest(pb.RemoveRequest(ids=request.ids, statistics=request.statistics))
        write = WriteId(request.header.worker_id, request.sequence, digest.intdigest())
        with self._unpacked([request.ids]):
            ids = inbound.table_ids(request.ids, self.config.limits.max_ids)
            statistics_N2 = codec.decode_statistics(request.statistics, len(ids.ids_N)) if request.statistics else None
            result = self.shard.remove(write, ids, statistics_N2, call.caller)
        answer = pb.RemoveResponse(version=result.version, existed=codec.encode_flags(result.existed_N))
        call.sent.said(answer)
        return answer.SerializeToString()

    def report_importance(self, data: bytes, call: ServedCall) -> bytes:
        """Embedding.ReportImportance."""
        request = requests.parse(pb.ReportImportanceRequest, data)
        call.received.said(request)
        self._check(request.header, sequence=request.sequence)
        digest = _digest(pb.ReportImportanceRequest(ids=request.ids, scores=request.scores))
        write = WriteId(request.header.worker_id, request.sequence, digest.intdigest())
        with self._unpacked([request.ids]):
            ids = inbound.table_ids(request.ids, self.config.limits.max_ids)
            result = self.shard.report_importance(write, ids, codec.decode_scores(request.scores), call.caller)
        existed = codec.encode_flags(result.existed_N)
        answer = pb.ReportImportanceResponse(version=result.version, existed=existed)
        call.sent.said(answer)
        return answer.SerializeToString()

    def export(self, data: bytes, call: ServedCall) -> Iterator[bytes]:
        """Embedding.Export."""
        request = requests.parse(pb.ExportRequest, data)
        self._check(request.header)
        n, highest = self._page_rows(request), request.highest_rank if request.cursor else EVERY_RANK
        least, highest = request.least, highest or EVERY_RANK
        with ExitStack() as held:
            with self.shard.rounds_give_way():
                held.enter_context(self.shard.budget.bodies.holding(self._page_bytes(request.table, n)))
            page = self.shard.export_page(request.table, request.cursor, n, least, highest, call.caller)
            yield from _page_messages(page, call)

    # the control plane

    def describe(self, data: bytes) -> bytes:
        """Control.Describe."""
        if not self.routing.shards:
            raise Unavailable("this shard has no routing table yet: the service is still starting")
        tables = [table.config.to_json() for table in list(self.shard.tables.values())]
        return control.DescribeResponse(
            routing=self.routing.to_proto(), table_configs_json=tables, release=self.release
        ).SerializeToString()

    def create_table(self, data: bytes) -> bytes:
        """Control.CreateTable."""
        self._check_state()
        request = requests.control(control.CreateTableRequest, data)
        config = TableConfig.from_json(request.config_json)
        created = self.shard.create_table(config, request.exist_ok)
        return control.CreateTableResponse(config_json=config.to_json(), created=created).SerializeToString()

    def drop_table(self, data: bytes) -> bytes:
        """Control.DropTable."""
        self._check_state()
        request = requests.control(control.DropTableRequest, data)
        dropped = self.shard.drop_table(request.table, request.missing_ok)
        return control.DropTableResponse(dropped=dropped).SerializeToString()

    def stats(self, metrics: RpcMetrics, data: bytes) -> bytes:
        """Control.Stats."""
        stats = {
            **self.shard.stats(),
            "state_lost": self.state_lost,
            "release": self.release,
            "budget": {
                "ram": self.config.memory.ram_bytes,
                "gpu": self.config.memory.gpu_bytes,
                "disk": self.config.disk.max_bytes,
            },
            "traffic": metrics.traffic(),
            "process": process_report(),
        }
        return control.StatsResponse(stats_json=json.dumps(stats)).SerializeToString()

    @contextmanager
    def _unpacked(self, tables: Sequence[pb.TableIds]) -> Iterator[int]:
        """Room among the messages under way for the ids of these tables: so many bytes, which their rows or gradients,
        mostly more, count beyond."""
        nbytes = unpacked_bytes(tables)
        with ExitStack() as held:
            with self.shard.rounds_give_way():
                held.enter_context(self.shard.budget.bodies.holding(nbytes))
            yield nbytes

    def _page_rows(self, request: pb.ExportRequest) -> int:
        n = min(request.max_rows or EXPORT_PAGE_ROWS, EXPORT_PAGE_ROWS)
        table = self.shard.tables.get(request.table)  # if there is none, the shard will say it
        most = min(EXPORT_PAGE_BYTES, self.config.limits.max_body_bytes // 2)  # the ids beside it have room too
        return n if table is None else min(n, max(1, most // (4 * table.config.dim)))

    def _page_bytes(self, name: str, n: int) -> int:
        """What a page of so many rows takes until it is sent."""
        table = self.shard.tables.get(name)
        return 0 if table is None else min(n, len(table)) * (4 * table.config.dim + PAGE_ROW_BYTES)

    def _target(self, request: pb.PullRequest | pb.PushHead) -> Target:
        what = request.WhichOneof("what")
        if what is None:
            raise InvalidArgument("the request names neither a step nor ids")
        if what == "step":
            digest = request.ids_digest if isinstance(request, pb.PushHead) else 0
            return inbound.step_ref(request.header, request.step, digest)
        return inbound.id_set(request.ids, self.config.limits.max_ids)

    def _check(self, header: pb.Header, step: int = 0, sequence: int = 0) -> None:
        about_call(worker=f"{header.worker_id:#x}", step=step, sequence=sequence)
        self._check_state()
        if header.routing_epoch != self.routing.epoch:
            raise StaleRouting(
                f"the request was routed by table {header.routing_epoch}, this shard has {self.routing.epoch}: "
                "ask for the routing table again"
            )

    def _check_state(self) -> None:
        if self.state_lost is not None:
            raise StateLost(self.state_lost)


def _page_messages(page: Page, call: Call) -> Iterator[bytes]:
    """Yields the messages of an export's page: the head, then the rows."""
    head = pb.ExportHead(
        next_cursor=page.next_cursor,
        ids=codec.encode_ids(page.ids_N),
        scores=page.scores_N.astype("<f4", copy=False).tobytes(),
        dim=page.values_ND.shape[1],
        statistics=codec.encode_statistics(page.statistics_N2),
        highest_rank=page.highest_rank,
    )
    call.sent.said(head)
    yield pb.ExportChunk(head=head).SerializeToString()
    for payload in codec.pieces((block.data, block.unit) for block in blocks.whole(page.values_ND)):
        yield codec.payload_message(payload)


def _digest(what: Message) -> xxhash.xxh3_128:
    """Of what a write says, without who says it; the body is added as it arrives."""
    return xxhash.xxh3_128(what.DESCRIPTOR.name.encode() + what.SerializeToString(deterministic=True))


def _ids_digest(head: pb.PushHead) -> int:
    """The same for a push that sends its ids and for its retry by step, or the other way round."""
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
