"""What the shard is given to read writes that came compressed: it does not know the wire."""

from __future__ import annotations

from ps.shard.writes.grammar import Wire
from ps.wire import blocks
from ps.wire.sorted_ids import decode_sorted_ids

WIRE = Wire(blocks.decode, decode_sorted_ids)
"""For `ps.shard.writes.registry.decode`."""
