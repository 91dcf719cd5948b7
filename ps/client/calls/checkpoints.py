"""The calls of a client that save the service, and that fill a new service from what was saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import Message

from ps.client.connection.retry import Deadline
from ps.client.session import ClientCalls
from ps.errors import InternalError, InvalidArgument
from ps.progress import Told
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method

TIMEOUT_S = 3600.0
"""How long a checkpoint or a restore may take where the caller does not say it, and the client has no longer time."""


class CheckpointCalls(ClientCalls):
    """The calls that concern checkpoints."""

    def checkpoint(
        self,
        path: str | Path | None = None,
        *,
        full: bool = False,
        timeout_s: float | None = None,
        told: Told = lambda stage, done, of: None,
    ) -> str:
        """Makes a checkpoint of the whole service, and returns its name when it is complete. Pushes go on meanwhile.
        The checkpoint has every write that any client was answered for before this call, on each shard up to one
        version. It is complete on all shards or does not exist; older ones stay whole.

        path: a folder of checkpoints that all shards and the coordinator see, or an fsspec URL; the checkpoint is a
        folder of that name in it. None: the service's own (`checkpoint.path`), where `checkpoint.keep` of them stay.
        full: has all rows. Otherwise only what has changed is written where the last checkpoint is in that folder too.
        timeout_s: seconds; by default an hour, or the client's own if that is longer. What is not complete by then is
        given up and removed. told: is told how far it is, on this thread.

        Another checkpoint that is under way is waited for. Raises ConfigError if no folder is given or configured,
        DiskFull, DiskError, StateLost and ShardPoisoned, with the shard's number, and Unavailable if a shard is down.
        """
        session = self._session
        deadline = session.deadline(self._long(timeout_s))
        sequence = session.next_sequence()

        def request(attempt: int) -> pb.CheckpointRequest:
            return pb.CheckpointRequest(
                worker_id=session.worker_id,
                sequence=sequence,
                url=_url(path),
                full=full,
                wait_ms=int(1000 * deadline.remaining_s()),
            )

        return str(self._follow(methods.CHECKPOINT, request, deadline, told)["name"])

    def restore(
        self,
        path: str | Path,
        *,
        at: int | Mapping[int, int] | None = None,
        log: str | Path | None = None,
        tables: Mapping[str, str] | None = None,
        values_only: bool = False,
        timeout_s: float | None = None,
        told: Told = lambda stage, done, of: None,
    ) -> dict[str, Any]:
        """Fills a new service from a checkpoint. Returns its `name`, whether it is `exact`, and the `versions` of the
        shards, in their order.

        path: a checkpoint, or a folder of checkpoints, of which the newest is taken. A service that has as many shards
        as the checkpoint becomes, byte for byte, the one that was saved: rows on the tiers where they were,
        importance, sketches, and the ledger, so that a push which was applied before the checkpoint is known. With
        another number of shards, or with `tables` or `values_only`, rows are loaded one by one: their values, optimizer
        state and importance are the same, the rest begins again.

        log: the folder (`log.path`) of the log of the service that was saved; it is carried out behind an exact
        restore. at: the last version to carry out, of the only shard, or for each shard its own; without it the log is
        carried out to its end. tables: {name in the checkpoint: name here}; only these. values_only: without optimizer
        state. timeout_s, told: as for `checkpoint`.

        Raises NotFound where there is no checkpoint, CheckpointCorrupt, LogCorrupt, TableExists if the service has
        tables, InvalidArgument for versions that checkpoint and log do not have, and ConfigError where the service
        cannot take the rows: with a log but without `checkpoint.path`.
        """
        session = self._session
        deadline = session.deadline(self._long(timeout_s))
        sequence = session.next_sequence()
        versions = self._versions(at, log)

        def request(attempt: int) -> pb.RestoreRequest:
            return pb.RestoreRequest(
                worker_id=session.worker_id,
                sequence=sequence,
                url=_url(path),
                log=_url(log),
                at=versions,
                tables=tables or {},
                values_only=values_only,
                wait_ms=int(1000 * deadline.remaining_s()),
            )

        result = self._follow(methods.RESTORE, request, deadline, told)
        session.connection.refresh(deadline)
        return result

    def _long(self, timeout_s: float | None) -> float:
        return max(TIMEOUT_S, self._session.timeout_s) if timeout_s is None else timeout_s

    def _versions(self, at: int | Mapping[int, int] | None, log: str | Path | None) -> dict[int, int]:
        """Returns the last version to carry out of each shard that is named. Raises InvalidArgument."""
        if at is None:
            return {}
        if log is None:
            raise InvalidArgument(f"at={at!r} is a version of a log: pass log, the folder that the service had it in")
        shards = len(self._session.connection.routing.shards)
        if not isinstance(at, Mapping):
            if shards > 1:
                raise InvalidArgument(
                    f"at={at!r}, and there are {shards} shards: give each its own, {{0: {at}, 1: ...}}"
                )
            at = {0: at}
        unknown = [shard for shard in at if shard not in range(shards)]
        if unknown:
            raise InvalidArgument(f"at names shards {unknown}, and there are shards 0 to {shards - 1}")
        if wrong := [version for version in at.values() if not 0 < int(version) < 1 << 63]:
            raise InvalidArgument(
                f"at names versions {wrong}: give the number of the last write to carry out, from 1 on"
            )
        return {int(shard): int(version) for shard, version in at.items()}

    def _follow(
        self, method: Method, request: Callable[[int], Message], deadline: Deadline, told: Told
    ) -> dict[str, Any]:
        """Returns the result of a long call of the coordinator, which tells meanwhile how far it is."""

        def attempt(number: int, address: str) -> dict[str, Any]:
            calls = self._session.connection.calls
            for message in calls.stream_out(address, method, request(number), deadline):
                progress = codec.parse(pb.Progress, message)
                if progress.result_json:
                    return cast("dict[str, Any]", json.loads(progress.result_json))
                told(progress.stage, progress.done_bytes, progress.all_bytes)
            raise InternalError(f"the answer to {method.name} ended before its result")

        return self._session.at_coordinator(attempt, deadline)


def _url(path: str | Path | None) -> str:
    """Returns where files are, as every process of this host understands it."""
    if path is None:
        return ""
    if not str(path):
        raise InvalidArgument("path is empty: give a folder, or a URL such as s3://bucket/folder")
    return str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())
