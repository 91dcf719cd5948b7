"""What the handlers of one shard share: the shard, its routing table, and the checks that every request passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ps import __version__
from ps.config import ServiceConfig
from ps.errors import InvalidArgument, ShardPoisoned, StaleRouting, StateLost, Unavailable
from ps.server import inbound
from ps.server.watch.logs import about_call
from ps.shard import Shard
from ps.shard.requests import Target
from ps.v1 import embedding_pb2 as pb
from ps.wire.routing import Routing
from ps.wire.unpacking import unpacked_bytes


class ShardService:
    """A shard as its RPCs see it. It has no state of its own but the routing table that it checks requests against.

    `state_lost` says why every call but Describe and Stats is refused; None: the shard has its rows. `closed` says why
    the same calls are to come again later, while a checkpoint is being restored.
    """

    def __init__(self, shard: Shard, routing: Routing, config: ServiceConfig, state_lost: str | None = None) -> None:
        self.shard = shard
        self.routing = routing
        self.config = config
        self.state_lost = state_lost
        self.closed: str | None = None
        self.release = __version__

    def check(self, header: pb.Header, step: int = 0, sequence: int = 0) -> None:
        """Notes for the log what the call is about. Raises the errors of `check_state`, and StaleRouting for another
        routing epoch, or Unavailable before there is one."""
        about_call(worker=f"{header.worker_id:#x}", step=step, sequence=sequence)
        self.check_state()
        if not self.routing.epoch:
            raise Unavailable("this shard has no routing table yet: it has just come back")
        if header.routing_epoch != self.routing.epoch:
            raise StaleRouting(
                f"the request was routed by the routing table of epoch {header.routing_epoch}, "
                f"this shard has {self.routing.epoch}: "
                "ask for the routing table again"
            )

    def check_state(self) -> None:
        """Raises StateLost when the shard has lost its rows, ShardPoisoned when a write has failed half-way, and
        Unavailable while it is being restored."""
        self.check_rows()
        if self.closed is not None:
            raise Unavailable(self.closed)

    def check_rows(self) -> None:
        """Raises StateLost and ShardPoisoned."""
        if self.state_lost is not None:
            raise StateLost(self.state_lost)
        if self.shard.poisoned is not None:
            raise ShardPoisoned(self.shard.poisoned)

    def target(self, request: pb.PullRequest | pb.PushHead) -> Target:
        """Returns the target of a request: a prepared step, or ids. Raises InvalidArgument if it names neither."""
        what = request.WhichOneof("what")
        if what is None:
            raise InvalidArgument("the request names neither a step nor ids")
        if what == "step":
            digest = request.ids_digest if isinstance(request, pb.PushHead) else 0
            return inbound.step_ref(request.header, request.step, digest)
        return inbound.id_set(request.ids, self.config.limits.max_ids)

    @contextmanager
    def unpacked(self, tables: Sequence[pb.TableIds]) -> Iterator[int]:
        """Holds room in the budget of messages for the unpacked ids of these tables, and yields its bytes. Rows and
        gradients, which mostly take more, count only the bytes beyond that."""
        nbytes = unpacked_bytes(tables)
        with ExitStack() as held:
            with self.shard.rounds.give_way():
                held.enter_context(self.shard.budget.bodies.holding(nbytes))
            yield nbytes
