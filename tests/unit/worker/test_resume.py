"""A run of the reference trainer that is broken off and resumed ends as one that was not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported import contents

import ps
from ps.cluster import inprocess
from ps.errors import InvalidArgument
from ps.nn.sparsify.thresholds import TopK
from worker.report.metrics import Progressive
from worker.report.shown import Share
from worker.train import run as run_module
from worker.train.interruption import Interruption
from worker.train.run import ALONE, run
from worker.train.settings import Checkpoints, Data, Settings

SETTINGS = Settings(
    data=Data("synthetic", rows=2100),  # 10 steps of 200, and one of 100
    dim=4,
    optimizer="adam",
    batch_size=200,
    swap_fraction=0.0,
    sparsify=TopK(0.2),
    wire_dtype="fp16",
    depth=2,
)


class Pressed(Interruption):
    """Ctrl-C before the nth batch."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.left = before

    def check(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def asked(folder: Path, resume: bool = False, every: int = 3) -> Settings:
    return replace(SETTINGS, checkpoints=Checkpoints(folder, every, resume))


def check_same(address: str, share: Share, other_address: str, other: Share) -> None:
    """Both ended with the same bits: dense part, predictions, and all rows."""
    assert share.dense_digest == other.dense_digest
    np.testing.assert_array_equal(share.probabilities_N, other.probabilities_N)
    np.testing.assert_array_equal(share.labels_N, other.labels_N)
    with ps.connect(address) as one, ps.connect(other_address) as two:
        for table in one.tables():
            for mine, theirs in zip(contents(one, table), contents(two, table), strict=True):
                np.testing.assert_array_equal(mine, theirs)


class Lost(Pressed):
    """A service that has lost rows before the nth batch."""

    def __init__(self, before: int, error: ps.PsError) -> None:
        super().__init__(before)
        self._error = error

    def check(self) -> None:
        try:
            super().check()
        except KeyboardInterrupt:
            raise self._error from None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ps.RolledBack("shard 1 went back"), "shard 1 went back. Go on from step 3 with --resume --rewind"),
        (ps.StateLost("shard 1 was restarted"), "restarted. Go on from step 3 with a new service and --resume"),
    ],
)
def test_where_a_service_has_lost_rows_the_error_says_how_to_go_on(
    tmp_path: Path, error: ps.PsError, words: str
) -> None:
    with pytest.raises(type(error), match=re.escape(words)):
        run(ALONE, asked(tmp_path), inprocess.start(), interruption=Lost(5, error))


@pytest.mark.parametrize(("before", "goes_on_at"), [(2, 0), (9, 6)])
def test_a_run_that_is_broken_off_ends_with_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: int, goes_on_at: int
) -> None:
    whole = inprocess.start()
    straight = run(ALONE, SETTINGS, whole)
    with pytest.raises(KeyboardInterrupt):
        run(ALONE, asked(tmp_path), inprocess.start(), interruption=Pressed(before))
    capsys.readouterr()
    again = inprocess.start()
    resumed = run(ALONE, asked(tmp_path, resume=True), again)
    check_same(whole, straight, again, resumed)
    said = " ".join(capsys.readouterr().out.split())
    if goes_on_at:
        assert f": resumed at step {goes_on_at} " in said
        assert f"{2100 - 200 * goes_on_at:,} samples in " in said
        assert f" samples/s, after {200 * goes_on_at:,} before" in said
    else:
        assert ": no checkpoint yet, so the run begins " in said
    assert re.search(r"checkpoint at step 9: [\d.]+ kB of trainers \+ service checkpoint \S+, [\d.]+ s ", said)
    assert "checkpoint at step 11: " in said, "the data has ended"


def test_a_run_that_has_ended_is_resumed_at_its_end(tmp_path: Path) -> None:
    whole, again = inprocess.start(), inprocess.start()
    straight = run(ALONE, asked(tmp_path), whole)
    resumed = run(ALONE, asked(tmp_path, resume=True), again)
    check_same(whole, straight, again, resumed)


def test_other_options_are_refused_and_both_values_named(tmp_path: Path) -> None:
    run(ALONE, asked(tmp_path), inprocess.start())
    other = replace(asked(tmp_path, resume=True), batch_size=100, seed=7)
    with pytest.raises(ps.ConfigError, match=r"other settings: --batch-size 200, now 100, --seed 0, now 7\. Give the"):
        run(ALONE, other, inprocess.start())


def test_options_that_change_no_value_may_be_others(tmp_path: Path) -> None:
    whole, again = inprocess.start(), inprocess.start()
    straight = run(ALONE, asked(tmp_path), whole)
    resumed = run(ALONE, replace(asked(tmp_path, resume=True), depth=0, compress_ids=True), again)
    check_same(whole, straight, again, resumed)


def test_options_of_checkpoints_need_a_folder_and_one_that_is_free(tmp_path: Path) -> None:
    for wrong in (Checkpoints(resume=True), Checkpoints(rewind=True), Checkpoints(rows="memory://rows")):
        with pytest.raises(InvalidArgument, match="need --checkpoint-dir FOLDER"):
            wrong.check()
    Checkpoints().check()
    Checkpoints(tmp_path).check()
    made = tmp_path / "step-000000000400"
    made.mkdir()
    (made / "training.json").touch()
    Checkpoints(tmp_path, resume=True).check()
    with pytest.raises(
        InvalidArgument, match="has the checkpoint of step 400: go on from it with --resume, or give an"
    ):
        Checkpoints(tmp_path).check()


def test_the_first_batches_are_passed_over_on_all_ranks() -> None:
    from worker.train.ranks import Meeting

    for ranks in (1, 2, 3):
        for rank in range(ranks):
            place = Meeting(rank, ranks)
            whole = run_module.EveryNth(range(11), place)
            rest = run_module.EveryNth(range(11), place, made=2)
            assert list(whole)[2:] == list(rest)
            assert whole.leftover == rest.leftover


def test_predictions_are_saved_with_their_labels() -> None:
    metrics, again = Progressive(), Progressive()
    metrics.add(np.array([0.25, 0.5], np.float32), np.array([1.0, 0.0]))
    again.add(np.array([0.75]), np.array([1.0]))
    again.load_state_dict(metrics.state_dict())
    metrics.add(np.array([0.125]), np.array([0.0]))
    assert [part.tolist() for part in again.rows()] == [[0.25, 0.5], [True, False]]
