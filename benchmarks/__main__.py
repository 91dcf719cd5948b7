"""Runs benchmarks: python -m benchmarks NAME ... [--json] [--quick]"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.harness.report import Report, print_header
from benchmarks.harness.sizes import FULL, QUICK, Sizes

BENCHMARKS = {
    "index": (
        "benchmarks.engine.index:run",
        "id index: find, insert, erase, bytes an id, the longest stall while it grows",
    ),
    "gather": ("benchmarks.engine.gather:run", "a table's find + lookup against a bare gather, numpy and torch"),
    "update": (
        "benchmarks.engine.update:run",
        "every optimizer through Table.apply and as a bare kernel, against numpy",
    ),
    "unique": ("benchmarks.engine.unique:run", "deduplication and gradient sums of a batch, against numpy"),
    "codec": (
        "benchmarks.wire.codec:run",
        "ids and rows to messages and back, against memcpy and protobuf's repeated float",
    ),
    "encodings": (
        "benchmarks.wire.encodings:run",
        "selected gradients by every encoding, sorted ids: bytes, and time against sending the saved bytes",
    ),
    "echo": ("benchmarks.wire.echo:run", "an empty gRPC echo and raw TCP over loopback: the limit for pull and push"),
    "pull": (
        "benchmarks.wire.exchange:pull",
        "pull over gRPC from one shard, against the echo and TCP; memory of a row",
    ),
    "push": ("benchmarks.wire.exchange:push", "push over gRPC to one shard, against the echo and TCP; memory of a row"),
    "step": (
        "benchmarks.wire.step:run",
        "prepare + pull + push of two tables with duplicates, in process and over gRPC",
    ),
    "scale": ("benchmarks.engine.scale:run", "cost of a row from 10^5 to 10^7 rows, and from 1 to 4 shards"),
    "fanout": ("benchmarks.wire.fanout:run", "a small step over 1 to 16 shards: the cost of each further call"),
    "disk": (
        "benchmarks.engine.disk:run",
        "rows on disk: batch reads against plain rocksdict, writes, the filter of ids",
    ),
    "swap": (
        "benchmarks.engine.swap:run",
        "training with half of the rows on disk, and with 36/37, against all of them in RAM",
    ),
    "budget": (
        "benchmarks.engine.budget:run",
        "ids grow to 20 times what `memory.ram_bytes` holds: peak of RSS, what is accounted for, speed",
    ),
    "trace": (
        "benchmarks.engine.trace:run",
        "hit rate on real traces of accesses, against other policies",
    ),
    "evict": (
        "benchmarks.engine.evict:run",
        "AUC with room for a twentieth of the rows: importance against LRU and LFU",
    ),
    "ttspeed": (
        "benchmarks.tensor_train.speed:run",
        "tensor-train rows, read and trained, against torch and dense rows; a whole training step",
    ),
    "ttquality": (
        "benchmarks.tensor_train.quality:run",
        "AUC with tensor-train tables by rank, and what else the bytes could buy",
    ),
    "dctquality": (
        "benchmarks.quality.dctquality:run",
        "AUC with compressed pushes, each option by itself, against whole ones",
    ),
    "link": (
        "benchmarks.wire.link:run",
        "whole training steps at 100 Mbit/s and 1 Gbit/s, compressed against plain; needs root",
    ),
    "wirebytes": (
        "benchmarks.wire.wirebytes:run",
        "bytes of a training step, everything counted: sparsified and encoded against dense fp32 with raw ids",
    ),
    "attack": (
        "benchmarks.service.attack:run",
        "calls of four honest clients beside one that stalls, cancels or stays idle: p99 without, under and after",
    ),
    "safety": (
        "benchmarks.service.safety:run",
        "pushes and training steps with each mode of the log and checkpoints, against none",
    ),
    "crash": (
        "benchmarks.durability.crash:run",
        "kills of shards, coordinator and trainers under load: what is lost, doubled, or no prefix",
    ),
    "checkpoint": (
        "benchmarks.durability.checkpoint:run",
        "checkpoints under load: pushes, memory, the disk's speed, increments; rows restored a second",
    ),
    "untouched": (
        "benchmarks.engine.untouched:run",
        "engine time of a small push beside 200 tables, and beside 64 prepared steps, that it does not touch",
    ),
    "startup": ("benchmarks.engine.startup:run", "import ps, and from nothing to the first pull"),
}
"""The benchmarks: name -> (module:function, what it shows)."""

Benchmark = Callable[[Report, Sizes], None]


def listing() -> str:
    """Lists the benchmarks, one a line."""
    return "\n".join(f"  {name:8} {line}" for name, (_, line) in BENCHMARKS.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the named benchmarks; without names it lists them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="benchmarks:\n" + listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; without a name they are listed")
    parser.add_argument("--json", action="store_true", help="one JSON object a figure on stdout, the header on stderr")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    parser.add_argument(
        "--full", action="store_true", help="tables of 10 million rows; the disk benchmark then takes 3 GB"
    )
    parser.add_argument("--kills", type=int, help="how many processes crash kills")
    parser.add_argument("--rows", type=int, help="how many rows checkpoint saves and restores")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are:\n{listing()}")
    if not given.names:
        print(listing())
        return
    sizes = QUICK if given.quick else FULL if given.full else Sizes()
    sizes = replace(
        sizes,
        kills=sizes.kills if given.kills is None else given.kills,
        checkpoint_rows=sizes.checkpoint_rows if given.rows is None else given.rows,
    )
    print_header(sizes, given.json)
    for name in given.names:
        module, _, function = BENCHMARKS[name][0].partition(":")
        run: Benchmark = getattr(importlib.import_module(module), function)
        run(Report(name, given.json), sizes)


if __name__ == "__main__":
    main()
