"""Surveys of real shards, in this process."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ps
from ps.cli.survey import Survey, Watch, seen
from ps.cluster import inprocess
from ps.wire.routing import ShardInfo


@contextmanager
def watched(**settings: Any) -> Iterator[tuple[ps.Client, Watch]]:
    """A service of one shard."""
    address = inprocess.start(ps.ServiceConfig(**settings))
    with ps.connect(address) as client, Watch(address, timeout_s=5.0) as watch:
        yield client, watch


def many(survey: Survey, shards: int, ill: Sequence[ps.PsError | str] = ()) -> Survey:
    """As if there were so many shards alike: the last ones do not answer, or have lost their rows for that reason."""
    found = []
    for number in range(shards):
        stats: Any = copy.deepcopy(dict(survey.stats[0])) | {"shard_id": number}
        trouble = ill[number - shards] if number >= shards - len(ill) else None
        answer: Any = trouble if isinstance(trouble, ps.PsError) else stats | {"state_lost": trouble}
        found.append(seen(ShardInfo(number, f"10.0.0.{number}:50051"), answer))
    return replace(survey, shards=found)
