"""Turns errors into gRPC codes and back, by one table.

The class name of an error and its fields are sent as trailing metadata, so the client raises the class that the shard
raised. A foreign server (a proxy, a health checker) sends only a code: then the code's own class is raised.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from ps import errors

CODES: dict[type[errors.PsError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.TableExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.SequenceConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleRouting: grpc.StatusCode.ABORTED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.DiskError: grpc.StatusCode.INTERNAL,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
"""The gRPC code of each class. A class that is not in the table has the code of its nearest ancestor."""

_CLASS_OF_CODE = {code: kind for kind, code in CODES.items()}  # of two, the last: INTERNAL alone is an InternalError
_CLASS_OF_NAME = errors.all_errors()
_NAME, _RETRY = "ps-error", "ps-retry-after-s"

_GRPC_IS_TOO_SMALL = "essage larger than max"
"""How gRPC's own message begins, on either side, about a message over its limit."""

MAX_DETAILS = 2000
"""The most characters of a message; gRPC refuses headers over 8 KiB, and one character may take twelve bytes there."""

Metadata = tuple[tuple[str, str], ...]


def code_of(error: errors.PsError) -> grpc.StatusCode:
    """Returns the gRPC code of an error."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.UNKNOWN)


def details_of(error: errors.PsError) -> str:
    """Returns the error's message, cut before HTTP/2 headers would overflow and the whole status be lost: a message may
    quote long input."""
    text = str(error)
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS // 2]} ... {text[-MAX_DETAILS // 2 :]}"


def to_metadata(error: errors.PsError) -> Metadata:
    """Returns the trailing metadata of an error."""
    found: Metadata = ((_NAME, type(error).__name__),)
    if isinstance(error, errors.ResourceExhausted) and error.retry_after_s is not None:
        found += ((_RETRY, repr(error.retry_after_s)),)
    return found


def from_status(code: grpc.StatusCode, details: str, metadata: Iterable[tuple[str, str | bytes]]) -> errors.PsError:
    """Returns the error that a status stands for. A cancelled call is an Unavailable: its outcome is not known."""
    trailers = {key: value for key, value in metadata if isinstance(value, str)}  # ours are text
    kind = _CLASS_OF_NAME.get(trailers.get(_NAME, "")) or _CLASS_OF_CODE.get(code)
    if kind is not None and issubclass(kind, errors.ResourceExhausted):
        if _NAME not in trailers and _GRPC_IS_TOO_SMALL in details:
            return kind(
                f"{details}: the ids for a shard are one message, and limits.max_message_bytes (of the service, and of "
                "ps.connect) bounds it: give fewer ids at once, have more shards, or raise both; limits.max_ids "
                "bounds their number"
            )
        return kind(details, _seconds(trailers.get(_RETRY)))
    if kind is not None:
        return kind(details)
    if code is grpc.StatusCode.CANCELLED:
        return errors.Unavailable(f"the call was cancelled: {details}")
    return errors.InternalError(f"{code.name}: {details}")


def _seconds(hint: str | None) -> float | None:
    try:
        return None if hint is None else float(hint)
    except ValueError:
        return None  # a foreign server's: no hint
