"""A training run of one trainer, or of several: the dense part in step, embeddings asynchronous (hybrid) or in step.

    trainer 0: batches 0, N, 2N, ...   trainer 1: batches 1, N + 1, ...      each pulls and pushes rows when it is ready
        ^------------ gradients of the dense part, step by step ------------^

Progressive validation: each batch is predicted before it is trained on, by whichever trainer has it. At the end the
predictions of all are put back into the order of the data.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console

from ps import Client, connect
from ps.errors import InternalError
from ps.nn.batch import Batch
from ps.nn.modes import Group
from ps.nn.prefetch import Prefetcher
from worker.data.source import Source
from worker.report import shown as report
from worker.report.metrics import Progressive
from worker.report.shown import Share
from worker.train.checkpoints import RunCheckpoints
from worker.train.interruption import Interruption
from worker.train.ranks import PATIENCE_S, Meeting
from worker.train.settings import WIRE_DTYPES, Settings
from worker.train.trainer import Trainer

out = Console()
ALONE = Meeting(0, 1)


class EveryNth:
    """Iterates over the batches `rank`, rank + ranks, ... of a loader, the same number for each rank, because all ranks
    must make the same steps. The batches of the first `made` steps are read and passed over.

    The last few batches, fewer than there are ranks, are left out: after the iteration, `leftover` is this rank's.
    """

    def __init__(self, loader: Iterable[Batch], place: Meeting, made: int = 0) -> None:
        self._loader = loader
        self._place = place
        self._made = made
        self.leftover: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:
        place = self._place
        batches = islice(self._loader, self._made * place.ranks, None)
        while len(group := list(islice(batches, place.ranks))) == place.ranks:
            yield group[place.rank]
        self.leftover = group[place.rank] if place.rank < len(group) else None


def run(
    place: Meeting,
    settings: Settings,
    address: str,
    source: Source | None = None,
    interruption: Interruption | None = None,
) -> Share:
    """Trains this rank's part of the data on the service at `address`; rank 0 shows the progress and the results of
    all. If Ctrl-C has been pressed, the run ends between two batches."""
    interruption = interruption or Interruption()
    console = out if place.rank == 0 else Console(quiet=True)
    torch.set_num_threads(settings.threads)
    source = source or settings.open_source()
    configs = settings.table_configs(source)
    if place.ranks > 1:
        place.join()
    with connect(address, wire_dtype=WIRE_DTYPES[settings.wire_dtype], compress_ids=settings.compress_ids) as client:
        saved = RunCheckpoints(settings, client, place, console)
        mode = settings.mode_of(_group(place))
        trainer = Trainer(
            client, source, configs, settings.dense_lr, settings.seed, sparsify=settings.sparsify, mode=mode
        )
        if place.ranks > 1:
            trainer.share_dense(settings.dense)
        saved.load(trainer)
        started = time.perf_counter()
        with saved.remedy_told():
            depth = _train(trainer, source, settings, place, console, interruption, saved)
        seconds = time.perf_counter() - started
        mine = _share(trainer, client)
        if shares := _gathered(mine, place):
            console.print(f"batches prepared ahead, at the end: {depth}", highlight=False)
            report.where_rows_live(console, client)
            report.how_stale(console, client, shares)
            report.on_the_wire(console, shares)
            _check_equal(shares)
            report.summary(console, source, in_order(shares, settings.batch_size), seconds, saved.rows_before)
            report.health(console, client)
    return mine


def in_order(shares: Sequence[Share], batch_size: int) -> Progressive:
    """Returns the predictions of all ranks in the order of the data, of which rank r had the batches r, r + ranks,
    ..."""
    cuts = [range(batch_size, len(share.labels_N), batch_size) for share in shares]
    together = Progressive()
    by_rank = [
        list(zip(np.split(share.probabilities_N, cut), np.split(share.labels_N, cut), strict=True))
        for share, cut in zip(shares, cuts, strict=True)
    ]
    for batch in chain.from_iterable(zip_longest(*by_rank)):
        if batch is not None:
            probabilities_B, labels_B = batch
            together.add(probabilities_B, labels_B.astype(np.float32))
    return together


def _train(
    trainer: Trainer,
    source: Source,
    settings: Settings,
    place: Meeting,
    console: Console,
    interruption: Interruption,
    saved: RunCheckpoints,
) -> int:
    """Trains one pass, or what is left of it; returns how many batches were prepared ahead at its end."""
    mine = EveryNth(source.batches(settings.batch_size), place, saved.first_step)
    with report.progress(source, console, saved.rows_before) as advance:
        prefetcher = Prefetcher(mine, trainer.embeddings, settings.depth, pull_ahead=settings.pull_ahead)
        for step, batch in enumerate(prefetcher, start=saved.first_step + 1):
            interruption.check()
            loss = trainer.step(batch)
            advance(place.ranks * len(batch.labels), loss)
            saved.after(step, trainer)
        saved.at_the_end(trainer)
        for batch in Prefetcher([] if mine.leftover is None else [mine.leftover], trainer.embeddings, 0):
            advance(place.ranks * len(batch.labels), trainer.predict(batch))
    trainer.finish()
    return prefetcher.depth


def _share(trainer: Trainer, client: Client) -> Share:
    return Share(
        *trainer.metrics.rows(),
        client=client.traffic(),
        whole_gradient_bytes=trainer.whole_gradient_bytes,
        dense=trainer.hook.stats() if trainer.hook else None,
        dense_digest=trainer.dense_digest(),
        staleness=trainer.embeddings.staleness,
    )


def _group(place: Meeting) -> Group:
    """Returns a group whose name no run had before: rank 0 draws it."""
    name = [f"run {secrets.token_hex(8)}"]
    if place.ranks > 1:
        dist.broadcast_object_list(name)
    return Group(name[0], place.rank, place.ranks, PATIENCE_S)


def _gathered(mine: Share, place: Meeting) -> list[Share]:
    """Returns the shares of all ranks on rank 0, none on the others."""
    if place.ranks == 1:
        return [mine]
    shares: list[Share | None] = [None] * place.ranks
    dist.gather_object(mine, shares if place.rank == 0 else None)
    return [share for share in shares if share is not None]


def _check_equal(shares: Sequence[Share]) -> None:
    differing = [rank for rank, share in enumerate(shares) if share.dense_digest != shares[0].dense_digest]
    if differing:
        raise InternalError(
            f"the dense parameters of trainers {differing} are not those of trainer 0: do all hosts run the same torch?"
        )
