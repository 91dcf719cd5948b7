"""Errors <-> gRPC codes: the class that the shard raised is the class that the client raises."""

from __future__ import annotations

import grpc
import pytest

from ps import errors
from ps.wire.status import CODES, code_of, from_status, to_metadata

ALL = sorted(errors.all_errors().items())


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_every_class_round_trips(name: str, kind: type[errors.PsError]) -> None:
    sent = kind("what went wrong")
    back = from_status(code_of(sent), str(sent), to_metadata(sent))
    assert type(back) is kind
    assert str(back) == "what went wrong"


@pytest.mark.parametrize("hint", [None, 0.0, 0.05, 12.5])
def test_the_hint_when_to_come_again_round_trips(hint: float | None) -> None:
    sent = errors.ResourceExhausted("full", retry_after_s=hint)
    back = from_status(code_of(sent), str(sent), to_metadata(sent))
    assert isinstance(back, errors.ResourceExhausted)
    assert back.retry_after_s == hint


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_no_error_of_ours_is_unknown_to_grpc(name: str, kind: type[errors.PsError]) -> None:
    expected = {grpc.StatusCode.UNKNOWN} if kind is errors.PsError else set(CODES.values())
    assert code_of(kind("x")) in expected


def test_a_subclass_has_the_code_of_its_nearest_ancestor() -> None:
    assert code_of(errors.NonFiniteGradient("x")) is grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(errors.StepNotFound("x")) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("code", list(grpc.StatusCode))
@pytest.mark.parametrize(
    "metadata", [(), (("ps-error", "NoSuchError"),), (("content-type", "application/grpc"),)], ids=str
)
def test_a_foreign_code_maps_to_a_class(code: grpc.StatusCode, metadata: tuple[tuple[str, str], ...]) -> None:
    found = from_status(code, "said a proxy", metadata)
    assert isinstance(found, errors.PsError)
    assert "said a proxy" in str(found)
    by_code = {known: kind for kind, known in CODES.items()} | {grpc.StatusCode.CANCELLED: errors.Unavailable}
    assert type(found) is by_code.get(code, errors.InternalError)


def test_binary_trailers_of_a_foreign_server_are_no_obstacle() -> None:
    """A status in the richer model comes as serialized protobuf under grpc-status-details-bin."""
    metadata = (("grpc-status-details-bin", b"\x08\x0e\xff\xfe\x80"),)
    assert type(from_status(grpc.StatusCode.UNAVAILABLE, "x", metadata)) is errors.Unavailable


def test_a_hint_that_is_no_number_is_no_hint() -> None:
    found = from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", (("ps-retry-after-s", "soon"),))
    assert type(found) is errors.ResourceExhausted


def test_ours_are_the_built_in_errors_that_users_know() -> None:
    assert issubclass(errors.InvalidArgument, ValueError)
    assert issubclass(errors.NotFound, LookupError)
    assert issubclass(errors.Unavailable, ConnectionError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
