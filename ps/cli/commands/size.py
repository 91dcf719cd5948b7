"""`psctl size`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ps.cli.options import Json
from ps.cli.output import print_json, print_lines
from ps.cli.sizing.quantities import parse_bytes, parse_count, parse_network
from ps.errors import InvalidArgument

if TYPE_CHECKING:
    from ps.cli.sizing.demand import Demand
    from ps.cli.sizing.nodes import Node
    from ps.config import DiskConfig, ServiceConfig, TableConfig

PLACE = 70


def size(
    ids: Annotated[
        list[str],
        typer.Option("--ids", help="Ids that will have a row in the end: 1e9, or NAME=1e9 for each of --tables."),
    ],
    dim: Annotated[int, typer.Option("--dim", min=1, help="Floats of a row's value.")] = 64,
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="sgd, adagrad, rowwise_adagrad, adam or ftrl.")
    ] = "rowwise_adagrad",
    cold: Annotated[str, typer.Option("--cold", help="none, fp16 or tensor_train: how most rows are stored.")] = "none",
    swap_fraction: Annotated[
        float,
        typer.Option("--swap-fraction", min=0, max=0.999, help="Share of the rows that live on disk; 0: no disk."),
    ] = 0.5,
    tables: Annotated[
        Path | None, typer.Option("--tables", exists=True, dir_okay=False, help="A tables file, instead of one table.")
    ] = None,
    shards: Annotated[
        int, typer.Option("--shards", "-n", min=0, help="Shards on all nodes; 0: as many as needed.")
    ] = 0,
    step_ids: Annotated[str, typer.Option("--step-ids", help="Unique ids of a step, all trainers together.")] = "100k",
    new_ids: Annotated[str, typer.Option("--new-ids", help="How many of --step-ids are new and get a row.")] = "0",
    steps_per_s: Annotated[float, typer.Option("--steps-per-s", min=0, help="Steps a second.")] = 1.0,
    wire: Annotated[str, typer.Option("--wire", help="Number type on the wire: fp32, fp16 or int8.")] = "fp32",
    density: Annotated[
        float, typer.Option("--density", min=0, max=1, help="Share of the gradients that is sent.")
    ] = 1.0,
    log: Annotated[str, typer.Option("--log", help="log.mode: off, interval or sync; its files count then.")] = "off",
    checkpoint_every_s: Annotated[
        float, typer.Option("--checkpoint-every-s", min=1, help="Seconds between two checkpoints.")
    ] = 600.0,
    node_ram: Annotated[str, typer.Option("--node-ram", help="RAM of a node.")] = "64GiB",
    node_disk: Annotated[str, typer.Option("--node-disk", help="SSD of a node.")] = "1TB",
    node_network: Annotated[str, typer.Option("--node-network", help="Network of a node.")] = "10Gbit/s",
    node_shards: Annotated[
        int, typer.Option("--node-shards", min=1, help="Most shards on a node: about one a core.")
    ] = 8,
    as_json: Json = False,
) -> None:
    """Says what tables need: RAM, SSD, network and nodes, and the settings of a shard that go with it.

    docs/operations.md has the formulas. --json: {tables: [{name, ids, per_shard}], shards, shard: {ram_bytes,
    start_bytes, disk_bytes}, settings: {memory: {ram_bytes}, disk: {max_bytes}, log: {max_bytes}}, step:
    {to_shards_bytes, from_shards_bytes}, log: {step_bytes, per_hour_bytes, per_day_bytes of all shards, kept_bytes,
    checkpoint_bytes, checkpoints_bytes of one}, nodes: {ram, disk, network, work, needed}}.
    """
    from ps.cli.sizing.demand import Demand
    from ps.cli.sizing.nodes import Node, fitted_to
    from ps.config import DiskConfig

    if tables is None:
        wanted = [_one(ids, dim=dim, optimizer=optimizer, cold=cold, swap_fraction=swap_fraction)]
    else:
        wanted = _listed(tables, ids)
    service = _logging(DiskConfig(path=Path("ssd") if swap_fraction else None), log, checkpoint_every_s)
    step = parse_count(step_ids), parse_count(new_ids), steps_per_s, _known(wire), density
    demand = Demand(wanted, service, max(shards, 1), *step)
    node = Node(parse_bytes(node_ram), parse_bytes(node_disk), parse_network(node_network), node_shards)
    _print(demand if shards else fitted_to(demand, node), node, as_json)


def _known(wire: str) -> str:
    from ps.wire.encodings import NUMBERS

    if wire not in NUMBERS:
        raise typer.BadParameter(f"--wire {wire!r}: expected {', '.join(NUMBERS)}")
    return wire


def _logging(disk: DiskConfig, mode: str, every_s: float) -> ServiceConfig:
    from ps.config import ServiceConfig

    if mode not in ("off", "interval", "sync"):
        raise typer.BadParameter(f"--log {mode!r}: expected off, interval or sync")
    checkpoint = {"path": "checkpoints", "every_s": every_s}
    return ServiceConfig(disk=disk).having(log={"mode": mode, "path": Path("log")}, checkpoint=checkpoint)


def _print(demand: Demand, node: Node, as_json: bool) -> None:
    if as_json:
        print_json(report(demand, node))
    else:
        from ps.cli.screens.size import size_screen

        print_lines(size_screen(demand, node))


def report(demand: Demand, node: Node) -> dict[str, Any]:
    """Returns the sizes for JSON."""
    from ps.cli.sizing.demand import network, shard_size
    from ps.cli.sizing.log import log_size
    from ps.cli.sizing.nodes import nodes, settled

    demand = settled(demand)
    shard, wire, needed = shard_size(demand), network(demand), nodes(demand, node)
    return {
        "tables": [
            {"name": config.name, "ids": ids, "per_shard": part._asdict()}
            for (config, ids), part in zip(demand.tables, shard.tables, strict=True)
        ],
        "shards": demand.shards,
        "shard": {"ram_bytes": shard.ram_bytes, "start_bytes": shard.start_bytes, "disk_bytes": shard.disk_bytes},
        "settings": {
            "memory": {"ram_bytes": demand.service.memory.ram_bytes},
            "disk": {"max_bytes": demand.service.disk.max_bytes},
            "log": {"max_bytes": demand.service.log.max_bytes},
        },
        "step": {"to_shards_bytes": wire.to_shards, "from_shards_bytes": wire.from_shards},
        "log": log_size(demand)._asdict(),
        "nodes": {**needed._asdict(), "needed": needed.needed},
    }


def _one(ids: Sequence[str], **settings: Any) -> tuple[TableConfig, int]:
    from ps.config import TableConfig

    if len(ids) != 1 or "=" in ids[0]:
        raise InvalidArgument(
            f"--ids {', '.join(ids)}: one table takes one number; --tables FILE takes NAME=N for each"
        )
    n = parse_count(ids[0])
    cold: dict[str, Any] = {"kind": settings["cold"]}
    if cold["kind"] == "tensor_train":
        cold |= {"rows": n, "index": "hash"}
    settings |= {
        "name": "table",
        "optimizer": {"kind": settings["optimizer"]},
        "cold": None if cold["kind"] == "none" else cold,
    }
    return TableConfig(**settings), n


def _listed(file: Path, ids: Sequence[str]) -> list[tuple[TableConfig, int]]:
    from ps.cli.config_file import tables_of

    configs = tables_of(file)
    given = dict(part.partition("=")[::2] for part in ids)
    names = {config.name for config in configs}
    if set(given) != names:
        raise InvalidArgument(
            f"--ids for {', '.join(sorted(given))}; {file} has the tables {', '.join(sorted(names))}: "
            "give --ids NAME=N for each"
        )
    return [(config, parse_count(given[config.name])) for config in configs]
