"""The RPCs that change no row: Prepare, Forget, Pull and Export. They raise PsError; `ps.server.gate.dispatch` turns it
into a status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from ps.policy.ranking import EVERY_RANK
from ps.server import inbound, outbound
from ps.server.gate.dispatch import ServedCall
from ps.server.handlers.service import ShardService
from ps.shard.requests import Page, Wanted
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, requests
from ps.wire.kinds import Call

EXPORT_PAGE_ROWS = 65_536
EXPORT_PAGE_BYTES = 16 << 20
"""Bytes of a page's values. A page is copied out between two pushes, and held until it is sent."""
PAGE_ROW_BYTES = 20
"""Bytes of a row's id, score and statistics in a page."""


class Reads:
    """The reads of one shard."""

    def __init__(self, service: ShardService) -> None:
        self._service, self._shard, self._config = service, service.shard, service.config

    def prepare(self, data: bytes, call: ServedCall) -> bytes:
        """Serves Embedding.Prepare."""
        request = requests.parse(pb.PrepareRequest, data)
        call.received.said(request)
        self._service.check(request.header, step=request.step)
        ref = inbound.step_ref(request.header, pb.StepRef(step=request.step), codec.digest_ids(request.ids))
        with self._service.unpacked(request.ids.tables):
            version = self._shard.prepare(ref, inbound.id_set(request.ids, self._config.limits.max_ids), call.caller)
        return pb.PrepareResponse(version=version).SerializeToString()

    def forget(self, data: bytes, call: ServedCall) -> bytes:
        """Serves Embedding.Forget."""
        request = requests.parse(pb.ForgetRequest, data)
        call.received.said(request)
        self._service.check(request.header, step=request.step)
        self._shard.forget(inbound.step_ref(request.header, pb.StepRef(step=request.step)))
        return pb.ForgetResponse().SerializeToString()

    def pull(self, data: bytes, call: ServedCall) -> Iterator[bytes]:
        """Serves Embedding.Pull."""
        request = requests.parse(pb.PullRequest, data)
        call.received.said(request)
        self._service.check(request.header, step=request.step.step)
        formats = outbound.formats_of(request)
        exact = all(form.exact for form in formats)
        wanted = Wanted(request.return_exists, [form.share for form in formats])
        allocate = outbound.allocate_message if exact else outbound.allocate_chunk
        with (
            self._service.unpacked(request.ids.tables) as held,
            self._shard.pull(self._service.target(request), wanted, allocate, call.caller, held) as stream,
        ):  # it ends also when the client has gone
            with self._shard.rounds.give_way():
                head = stream.head()
            message = outbound.pull_head(head)
            call.sent.said(message)
            yield pb.PullChunk(head=message).SerializeToString()
            yield from stream if exact else outbound.messages(stream, head, formats)

    def export(self, data: bytes, call: ServedCall) -> Iterator[bytes]:
        """Serves Embedding.Export."""
        request = requests.parse(pb.ExportRequest, data)
        self._service.check(request.header)
        n, highest = self._page_rows(request), request.highest_rank if request.cursor else EVERY_RANK
        least, highest = request.least, highest or EVERY_RANK
        with ExitStack() as held:
            with self._shard.rounds.give_way():
                held.enter_context(self._shard.budget.bodies.holding(self._page_bytes(request.table, n)))
            page = self._shard.export_page(request.table, request.cursor, n, least, highest, call.caller)
            yield from _page_messages(page, call)

    def _page_rows(self, request: pb.ExportRequest) -> int:
        """Returns how many rows the page has at most."""
        n = min(request.max_rows or EXPORT_PAGE_ROWS, EXPORT_PAGE_ROWS)
        table = self._shard.tables.get(request.table)  # if there is none, the shard will say it
        most = min(EXPORT_PAGE_BYTES, self._config.limits.max_body_bytes // 2)  # the ids beside it have room too
        return n if table is None else min(n, max(1, most // (4 * table.config.dim)))

    def _page_bytes(self, name: str, n: int) -> int:
        """Returns the bytes that a page of n rows takes until it is sent."""
        table = self._shard.tables.get(name)
        return 0 if table is None else min(n, len(table)) * (4 * table.config.dim + PAGE_ROW_BYTES)


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
