"""The functions by which the shard reads writes that came compressed: the shard does not import the wire."""

from __future__ import annotations

from ps.shard.writes.grammar import Wire
from ps.wire import blocks
from ps.wire.sorted_ids import decode_sorted_ids

WIRE = Wire(blocks.decode, decode_sorted_ids)
"""The functions that `ps.shard.writes.registry.decode` takes."""
