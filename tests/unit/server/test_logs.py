"""Log lines: for people or machines, with the ids of the call that they are about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

import ps
from ps.server.shard_server import ShardServer
from ps.server.watch import logs
from ps.v1 import embedding_pb2 as pb
from tests.wire_calls import RawCalls, error_of, id_set

log = logging.getLogger("ps.test")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Ours, as it was afterwards: other tests look at what it passes on."""
    found = logging.getLogger("ps")
    before = (found.handlers, found.level, found.propagate)
    yield found
    found.handlers, found.level, found.propagate = before


def lines(kind: Literal["text", "json"]) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(kind, {"service": "ads", "shard": "3"}, stream)
    return stream


def test_a_json_line_is_one_line_and_says_who_and_what(logger: logging.Logger) -> None:
    stream = lines("json")
    logs.begin_call("Push")
    logs.about_call(worker="0xff", step=0, sequence=9)
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        log.exception("failed: %s", error)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert {key: found[key] for key in ("level", "logger", "message", "service", "shard")} == {
        **{"level": "error", "logger": "ps.test", "message": "failed: two\nlines"},
        **{"service": "ads", "shard": "3"},
    }
    assert (found["method"], found["worker"], found["sequence"]) == ("Push", "0xff", 9)
    assert "step" not in found, "it has none"
    assert "ValueError" in found["stack"]
    assert found["time"].endswith("Z")


def test_a_text_line_has_the_same_ids(logger: logging.Logger) -> None:
    stream = lines("text")
    logs.begin_call("Pull")
    logs.about_call(worker="0xff", step=7)
    log.warning("slow")
    log.debug("not shown")
    line = stream.getvalue().rstrip("\n")
    assert line.endswith(" WARNING service=ads shard=3 method=Pull worker=0xff step=7: slow")


def test_a_line_keeps_the_fields_that_it_brings_along(logger: logging.Logger) -> None:
    stream = lines("json")
    mine = logs.begin_call("Pull")
    logs.begin_call("Push")
    log.info("ended", extra={"fields": mine})
    assert json.loads(stream.getvalue())["method"] == "Pull"


def test_a_call_that_fails_is_logged_with_its_ids(logger: logging.Logger, shard_server: ShardServer) -> None:
    stream = lines("json")
    with ps.connect(shard_server.address), RawCalls(shard_server.address, worker_id=255) as calls:
        assert isinstance(error_of(calls.pull, step=pb.StepRef(step=77)), ps.NotFound)
        assert isinstance(error_of(calls.prepare, 78, id_set(absent=[1])), ps.TableNotFound)
    pull, prepare = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (pull["method"], pull["worker"], pull["step"], pull["code"]) == ("Pull", "0xff", 77, "NOT_FOUND")
    assert (prepare["method"], prepare["step"], prepare["level"]) == ("Prepare", 78, "info")
    assert prepare["message"].startswith("TableNotFound: no table 'absent'")
    assert prepare["seconds"] >= 0
