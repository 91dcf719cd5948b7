"""The screen of `psctl size` as lines of text. Pure."""

from __future__ import annotations

from ps.cli.screens.layout import columns
from ps.cli.screens.numbers import NOTHING, count, nbytes
from ps.cli.sizing.demand import Demand, network, shard_size
from ps.cli.sizing.log import log_size
from ps.cli.sizing.nodes import Node, nodes, settled
from ps.config.sizes import written


def size_screen(demand: Demand, node: Node) -> list[str]:
    """Shows the tables over all shards, one shard with its settings, a step, and the nodes."""
    demand = settled(demand)
    shard, wire, needed = shard_size(demand), network(demand), nodes(demand, node)
    rows = [("table", "rows", "a row in RAM", "on disk", "rows in RAM", "RAM", "disk")]
    for (config, ids), part in zip(demand.tables, shard.tables, strict=True):
        on_disk = f"{part.disk_row_bytes:,.0f} B" if part.disk_row_bytes else NOTHING
        rows.append(
            (
                config.name,
                count(ids),
                f"{part.ram_row_bytes:,.0f} B",
                on_disk,
                count(part.rows_in_ram * demand.shards),
                nbytes(part.ram_bytes * demand.shards),
                nbytes(part.disk_bytes * demand.shards),
            )
        )
    given = demand.service
    settings = [f"    memory: {{ram_bytes: {written(given.memory.ram_bytes or 0)}}}"]
    settings += [f"    disk: {{max_bytes: {written(given.disk.max_bytes)}}}"] if given.disk.max_bytes else []
    settings += [f"    log: {{max_bytes: {written(given.log.max_bytes)}}}"] if given.log.max_bytes else []
    per_s = max(wire) * demand.steps_per_s
    return [
        *columns(rows),
        "",
        f"each of {demand.shards} shards uses {nbytes(shard.ram_bytes)} of RAM ({nbytes(shard.start_bytes)} before it "
        f"has tables) and {nbytes(shard.disk_bytes)} of disk; give it",
        *settings,
        f"a step of {count(demand.step_ids)} ids: {nbytes(wire.to_shards)} to the shards, {nbytes(wire.from_shards)} "
        f"from them; at {demand.steps_per_s:g} steps/s {nbytes(per_s)}/s in the busier direction",
        *_durable(demand),
        f"nodes: {needed.needed} (by RAM {needed.ram}, disk {needed.disk}, network {needed.network}, work "
        f"{needed.work}), each with {nbytes(node.ram_bytes)} of RAM, {nbytes(node.disk_bytes)} of disk, "
        f"{8e-9 * node.network_bytes_per_s:g} Gbit/s, {node.shards} shards at most",
    ]


def _durable(demand: Demand) -> list[str]:
    """Says what a log takes, and with one what is kept of it, and of checkpoints."""
    size, given = log_size(demand), demand.service
    first = f"a log of that: {nbytes(size.step_bytes)} a step, {nbytes(size.per_hour_bytes)} an hour, "
    first += f"{nbytes(size.per_day_bytes)} a day, all shards together"
    if given.log.mode == "off" or size.kept_bytes is None or given.checkpoint.every_s is None:
        return [first]
    return [
        first,
        f"kept of each shard, with a checkpoint every {given.checkpoint.every_s:g} s: {nbytes(size.kept_bytes)} of "
        f"log, up to {nbytes(size.checkpoints_bytes)} of checkpoints (a full one: {nbytes(size.checkpoint_bytes)})",
    ]
