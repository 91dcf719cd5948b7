"""A request of every method, as a client makes it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import ps
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.methods import Method
from tests.loopback.tables import DIM
from tests.messages.parts import EDGES, TABLES, Parts


def _prepare(make: Parts) -> list[Any]:
    tables = [make.table_ids(bags=True)[0] for _ in range(make.random.randint(1, 3))]
    for name, part in zip(TABLES, tables, strict=False):
        part.table = name
    return [pb.PrepareRequest(header=make.header(), step=make.random.randint(1, 99), ids=pb.IdSet(tables=tables))]


def _pull(make: Parts) -> list[Any]:
    part, _, _ = make.table_ids(bags=True)
    request = pb.PullRequest(header=make.header(), return_exists=make.random.random() < 0.5)
    if make.random.random() < 0.2:
        request.step.step = make.random.randint(1, 99)
    else:
        request.ids.tables.append(part)
    if make.random.random() < 0.5:
        precisions = [pb.PRECISION_FP32, pb.PRECISION_FP16, pb.PRECISION_INT8]
        share = make.random.choice([None, 0.5])
        one, other = make.random.choices(precisions, k=2)
        request.formats.append(pb.PullFormat(important=one, others=other, important_share=share, mask_below=0.1))
    return [request]


def _push(make: Parts) -> list[Any]:
    part, n, bags = make.table_ids(bags=True)
    blocks, body = make.body(n)
    shape = pb.PushedTable(table=part.table, rows=n, dim=DIM, blocks=blocks, bags=bags)
    if bags:
        bag_blocks, of_bags = make.body(bags)
        shape.bag_blocks.extend(bag_blocks)
        body = of_bags + body
    head = pb.PushHead(header=make.header(), sequence=make.next_sequence(), tables=[shape])
    if make.random.random() < 0.2:
        head.step.step = make.random.randint(1, 99)
    else:
        head.ids.tables.append(part)
    if make.random.random() < 0.1:
        head.round.CopyFrom(pb.Round(group="g", number=1, rank=0, ranks=make.random.choice([1, 1, 2])))
    return [pb.PushChunk(head=head), *make.chunks(pb.PushChunk, body)]


def _write(make: Parts) -> list[Any]:
    part, n, _ = make.table_ids(5000)
    blocks = [pb.Block(encoding=pb.ENCODING_FP32, bytes=4 * n * DIM)]
    head = pb.WriteHead(
        header=make.header(),
        sequence=make.next_sequence(),
        mode=make.random.choice([pb.WRITE_MODE_UPSERT, pb.WRITE_MODE_ASSIGN]),
        ids=part,
        shape=pb.PushedTable(table=part.table, rows=n, dim=DIM, blocks=blocks),
    )
    return [pb.WriteChunk(head=head), *make.chunks(pb.WriteChunk, np.ones((n, DIM), "<f4").tobytes())]


def _remove(make: Parts) -> list[Any]:
    part, n, _ = make.table_ids()
    statistics = bytes(8 * n) if make.random.random() < 0.5 else b""
    return [pb.RemoveRequest(header=make.header(), sequence=make.next_sequence(), ids=part, statistics=statistics)]


def _report(make: Parts) -> list[Any]:
    part, n, _ = make.table_ids()
    return [
        pb.ReportImportanceRequest(
            header=make.header(), sequence=make.next_sequence(), ids=part, scores=np.ones(n, "<f4").tobytes()
        )
    ]


def _export(make: Parts) -> list[Any]:
    rng = make.random
    return [
        pb.ExportRequest(
            header=make.header(),
            table=rng.choice(list(TABLES)),
            cursor=rng.choice(EDGES),
            max_rows=min(rng.choice(EDGES), 2**32 - 1),
            least=rng.choice(EDGES),
            highest_rank=rng.choice([0, 1, 2**63 - 1, -(2**63)]),
        )
    ]


def _create(make: Parts) -> list[Any]:
    rng = make.random
    colds = [ps.Fp16(), ps.TensorTrain(rows=rng.choice([1, 1000, 10**6, 2**40]), ranks=rng.choice([1, 8, 64])), None]
    name, cold = f"n{rng.randint(0, 3)}", rng.choice(colds)
    config = ps.TableConfig(name=name, dim=rng.choice([1, 4, 96, 65_536]), cold=cold)
    text = config.to_json()
    if rng.random() < 0.5:
        text = _other_json(rng, text)
    return [control.CreateTableRequest(config_json=text, exist_ok=rng.random() < 0.5)]


def _other_json(rng: random.Random, text: str) -> str:
    """Numbers beyond all bounds, keys that nobody knows, and what is no JSON."""
    n = int(60_000 ** rng.random())
    return rng.choice(
        [
            text.replace('"seed":0', '"seed":' + "9" * n),
            text.replace('"seed":0', '"half_life_pushes":' + str(rng.choice(EDGES)) + ',"seed":0'),
            text.replace('"seed":0', ",".join(f'"k{i}":1' for i in range(n // 8)) + ',"seed":0'),
            text.replace('"seed":0', '"seed":' + "[" * n + "]" * n),
            text.replace('"rows":1000', f'"rows":{rng.choice(EDGES)}'),
            text.replace('"hot_rows":10000', f'"hot_rows":{rng.choice(EDGES)}'),
            text.replace('"ranks":8', '"ranks":[1024,1024]'),
            text.replace('"p_shapes":null', f'"p_shapes":[{rng.choice(EDGES)},{rng.choice(EDGES)},1]'),
            text.replace(
                '{"kind":"always"}', f'{{"kind":"count_threshold","min_count":2,"cells":{rng.choice(EDGES)}}}'
            ),
            text.replace('"max_rows_per_shard":null', f'"max_rows_per_shard":{rng.choice(EDGES)}'),
            text.replace('"name":"n', '"name":"' + "x" * n),
            text[: rng.randrange(len(text))],
        ]
    )


def _drop(make: Parts) -> list[Any]:
    return [control.DropTableRequest(table=f"n{make.random.randint(0, 4)}", missing_ok=make.random.random() < 0.5)]


def _set_optimizer(make: Parts) -> list[Any]:
    rng = make.random
    names = rng.choices(["lr", "eps", "beta1", "initial_accumulator", "kind", "x" * make.size(60_000)], k=2)
    values = [0.0, 0.1, -1.0, 1e300, float("nan"), float("inf")]
    return [
        control.SetOptimizerRequest(
            worker_id=make.header().worker_id,
            sequence=make.next_sequence(),
            table=rng.choice(list(TABLES)),
            settings={name: rng.choice(values) for name in names[: rng.randint(0, 2)]},
            cores=rng.random() < 0.2,
            wait_ms=rng.choice(EDGES),
        )
    ]


def _advance(make: Parts) -> list[Any]:
    ranks = make.size(4096)
    return [
        control.AdvanceRequest(
            group=f"g{make.random.randint(0, 3)}",
            rank=make.random.randrange(ranks),
            clocks=[1] * ranks,
            max_staleness=5,
        )
    ]


GOOD: dict[Method, Callable[[Parts], list[Any]]] = {
    methods.PREPARE: _prepare,
    methods.FORGET: lambda make: [pb.ForgetRequest(header=make.header(), step=make.random.randint(1, 99))],
    methods.PULL: _pull,
    methods.PUSH: _push,
    methods.WRITE: _write,
    methods.REMOVE: _remove,
    methods.REPORT_IMPORTANCE: _report,
    methods.EXPORT: _export,
    methods.DESCRIBE: lambda make: [control.DescribeRequest()],
    methods.CREATE_TABLE: _create,
    methods.DROP_TABLE: _drop,
    methods.SET_OPTIMIZER: _set_optimizer,
    methods.STATS: lambda make: [control.StatsRequest()],
    methods.ADVANCE: _advance,
}
