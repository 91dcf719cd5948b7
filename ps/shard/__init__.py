"""A shard: tables behind one engine thread, with a ledger. It is deterministic: the same writes in the same order give
the same bytes, on any number of threads that decode and encode."""

from ps.shard.requests import Gradients, PullHead, PushResult, StepRef, TableIds
from ps.shard.shard import Shard

__all__ = ["Gradients", "PullHead", "PushResult", "Shard", "StepRef", "TableIds"]
