"""A shard: tables behind one engine thread, with a ledger. Deterministic: the same writes in the same order give the
same bytes, however many threads decode and encode around it."""

from ps.shard.requests import Gradients, PullHead, PushResult, StepRef, TableIds
from ps.shard.shard import Shard

__all__ = ["Gradients", "PullHead", "PushResult", "Shard", "StepRef", "TableIds"]
