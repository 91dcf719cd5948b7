"""A run that goes on from a checkpoint ends with the bits of one that never stopped."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resumable import Ended, Run, batch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import ps
from ps.cluster import inprocess
from ps.nn import TrainingCheckpoints
from ps.runtime.files import RealFiles
from tests.documents import ROOT


class Counter:
    """A part of a program's own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def check_same(one: Ended, other: Ended) -> None:
    for mine, theirs in zip(one.dense, other.dense, strict=True):
        assert torch.equal(mine, theirs)
    assert same(one.optimizer, other.optimizer)
    assert same(one.held, other.held)
    for table, rows in one.rows.items():
        assert len(rows) > 50
        np.testing.assert_array_equal(rows, other.rows[table])


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


@pytest.mark.parametrize("seed", range(5))
def test_a_run_in_two_services_ends_with_the_bits_of_one_in_one(tmp_path: Path, seed: int) -> None:
    straight = Run(inprocess.start(shards=2), tmp_path / "one", seed)
    straight.train(20)
    stopped = Run(inprocess.start(shards=2), tmp_path / "two", seed)
    stopped.train(12, save_at=5 + seed)  # and what it has trained since is lost
    torch.manual_seed(99)
    resumed = Run(inprocess.start(shards=2), tmp_path / "two", seed)
    assert resumed.step == 5 + seed
    resumed.train(20)
    check_same(straight.ended(), resumed.ended())
    assert straight.embeddings._pushes.sparsifiers["user"].rows_held > 20


def test_the_saved_gradients_that_are_held_back_matter(tmp_path: Path) -> None:
    """If a part is missing, the test above does see it."""
    runs = []
    for lost in (False, True):
        stopped = Run(inprocess.start(), tmp_path / str(lost), 0)
        stopped.train(8, save_at=8)
        runs.append(Run(inprocess.start(), tmp_path / str(lost), 0))
        if lost:
            runs[1].embeddings.set_extra_state(Run(inprocess.start(), tmp_path / "new", 0).embeddings.get_extra_state())
        runs[-1].train(20)
    with pytest.raises(AssertionError):
        check_same(runs[0].ended(), runs[1].ended())


def test_an_empty_folder_begins_and_nothing_is_loaded(tmp_path: Path) -> None:
    run = Run(inprocess.start(), tmp_path / "not-there", 3)
    assert run.step == 0
    assert not (tmp_path / "not-there").exists()


def test_the_newest_are_kept_and_what_was_broken_off_is_removed(tmp_path: Path) -> None:
    run = Run(inprocess.start(), tmp_path, 0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "step-000000000009.new").mkdir()
    for step in (2, 4, 6):
        run.train(step, save_at=step)
    assert run.checkpoints.steps == [4, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "step-000000000004", "step-000000000006"]
    assert sorted(path.name for path in (tmp_path / "step-000000000006").iterdir()) == [
        "dense",
        "rank-0.pt",
        "service",
        "training.json",
    ]


def test_other_settings_are_refused_and_both_values_named(tmp_path: Path) -> None:
    Run(inprocess.start(), tmp_path, 0).train(1, save_at=1)
    with pytest.raises(ps.ConfigError, match=r"step-000000000001 was made with other settings: seed 0, now 1\. Give"):
        Run(inprocess.start(), tmp_path, 1)


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    Run(inprocess.start(), tmp_path, 0).train(1, save_at=1)
    manifest = tmp_path / "step-000000000001" / "training.json"
    manifest.write_text(manifest.read_text().replace('"ranks": 1', '"ranks": 2'))
    with pytest.raises(ps.ConfigError, match=r"other settings: ranks 2, now 1\."):
        Run(inprocess.start(), tmp_path, 0)


def test_other_parts_are_refused(tmp_path: Path) -> None:
    Run(inprocess.start(), tmp_path, 0).train(1, save_at=1)
    resumed = Run(inprocess.start(), tmp_path, 0)
    with pytest.raises(
        ps.InvalidArgument, match=r"has the parts \['embeddings', .*'schedule'\], and these are \['model'\]"
    ):
        resumed.checkpoints.load({"model": resumed.model})


def test_gradients_that_wait_for_a_step_are_not_lost_in_silence(tmp_path: Path) -> None:
    run = Run(inprocess.start(), tmp_path, 0)
    run.train(1)
    run.model(run.embeddings(batch(0, 2)[0])).sum().backward()
    with pytest.raises(ps.InvalidArgument, match=r"1 backward have not been pushed by a step\(\): call step\(\)"):
        run.checkpoints.save(1, run.parts)
    run.embeddings.step()
    run.checkpoints.save(1, run.parts)


@pytest.mark.parametrize("step", [0, -1, True, 2.0, "3"])
def test_a_step_that_is_no_later_number_is_refused(tmp_path: Path, step: Any) -> None:
    run = Run(inprocess.start(), tmp_path, 0)
    with pytest.raises(ps.InvalidArgument, match=f"a checkpoint of step {step!r}"):
        run.checkpoints.save(step, run.parts)


def test_a_folder_with_the_checkpoints_of_another_run_is_refused(tmp_path: Path) -> None:
    Run(inprocess.start(), tmp_path / "one", 0).train(3, save_at=3)
    run = Run(inprocess.start(), tmp_path / "two", 0)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    run.train(2)
    with pytest.raises(ps.InvalidArgument, match="has checkpoints of another run, up to step 3"):
        run.checkpoints.save(2, run.parts)


def damaged(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["training.json", "rank-0.pt", "dense/__0_0.distcp", "dense/.metadata"])
def test_a_file_that_is_damaged_or_missing_is_named(tmp_path: Path, name: str) -> None:
    Run(inprocess.start(), tmp_path, 0).train(2, save_at=2)
    damaged(tmp_path / "step-000000000002" / name)
    with pytest.raises(ps.CheckpointCorrupt, match=f"step-000000000002/{name.split('/')[0]}.* cannot be read"):
        Run(inprocess.start(), tmp_path, 0)


def test_torch_alone_reads_the_dense_part(tmp_path: Path) -> None:
    run = Run(inprocess.start(), tmp_path, 0)
    run.train(2, save_at=2)
    dcp_to_torch_save(tmp_path / "step-000000000002" / "dense", tmp_path / "dense.pt")
    found = torch.load(tmp_path / "dense.pt", weights_only=True)
    assert torch.equal(found["model.1.weight"], run.model[1].weight)
    assert torch.equal(found["optimizer.state.0.exp_avg"], run.optimizer.state_dict()["state"][0]["exp_avg"])


class Stops(RealFiles):
    """Files of a trainer that is killed at the nth call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def __getattribute__(self, name: str) -> Any:
        if name in ("create", "rename", "remove", "make_folder", "sync_folder", "names"):
            object.__getattribute__(self, "_count")()
        return object.__getattribute__(self, name)


def test_killed_at_any_call_of_a_save_one_checkpoint_is_whole_and_the_next_one_can_be_made(tmp_path: Path) -> None:
    address, first, layer, reached = inprocess.start(), tmp_path / "first", torch.nn.Linear(2, 2), set()
    with ps.connect(address) as client:
        TrainingCheckpoints(first, client).save(4, {"layer": layer, "counter": Counter(4)})
    for at in range(100):
        folder, files = tmp_path / str(at), Stops(10_000)
        shutil.copytree(first, folder)
        with ps.connect(address) as client:
            checkpoints = TrainingCheckpoints(folder, client, keep=1, files=files)
            checkpoints.last = 4  # as a run that goes on
            files.left = at
            try:
                checkpoints.save(6, {"layer": layer, "counter": Counter(6)})
            except KeyboardInterrupt:
                pass
            else:
                break
        counter, again = Counter(None), torch.nn.Linear(2, 2)
        with ps.connect(inprocess.start()) as client:
            resumed = TrainingCheckpoints(folder, client, keep=1)
            step = resumed.restore_rows()
            resumed.load({"layer": again, "counter": counter})
            assert counter.state == step
            assert torch.equal(again.weight, layer.weight)
            resumed.save(9, {"counter": counter})
        assert [path.name for path in folder.iterdir()] == ["step-000000000009"]
        reached.add(step)
    assert at > 8
    assert reached == {4, 6}


def test_all_random_generators_go_on(tmp_path: Path) -> None:
    def drawn() -> tuple[float, ...]:
        numpys = np.random  # the one that programs share
        return random.random(), random.gauss(0, 1), numpys.random(), float(torch.rand(()))

    random.gauss(0, 1)  # leaves one more for the next call
    with ps.connect(inprocess.start()) as client:
        TrainingCheckpoints(tmp_path, client).save(1, {})
    expected = drawn()
    with ps.connect(inprocess.start()) as client:
        checkpoints = TrainingCheckpoints(tmp_path, client)
        checkpoints.restore_rows()
        checkpoints.load({})
    assert drawn() == expected


def test_a_checkpoint_that_the_service_refuses_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(inprocess.start(), tmp_path, 0)
    run.train(2, save_at=2)

    def full(*_: object) -> str:
        raise ps.DiskFull("no room for shard 1's part")

    with monkeypatch.context() as patched:
        patched.setattr(run.client, "checkpoint", full)
        with pytest.raises(ps.DiskFull, match="no room"):
            run.train(3, save_at=3)
    assert run.checkpoints.steps == [2]
    run.train(4, save_at=4)
    assert run.checkpoints.steps == [2, 4]


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, ps.DiskFull), (errno.EIO, ps.DiskError)])
def test_a_disk_that_refuses_the_trainers_files_is_a_typed_error(
    tmp_path: Path, number: int, error: type[ps.PsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    run = Run(inprocess.start(), tmp_path, 0)
    run.train(1)
    with monkeypatch.context() as patched:
        patched.setattr(run.checkpoints._files, "create", refuse)
        with pytest.raises(error, match=os.strerror(number)):
            run.checkpoints.save(1, run.parts)
    run.checkpoints.save(1, run.parts)


def test_the_manifest_says_where_the_rows_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "rows"
    run = Run(inprocess.start(), tmp_path / "run", 0, service_path=str(elsewhere))
    run.train(1, save_at=1)
    told = json.loads((tmp_path / "run" / "step-000000000001" / "training.json").read_text())
    assert told["service"] == {
        "path": str(elsewhere),
        "name": next(elsewhere.iterdir()).name,
        "tables": ["item", "user"],
    }
    assert Run(inprocess.start(), tmp_path / "run", 0).step == 1


@pytest.mark.parametrize("keep", [0, -1, True, 1.5])
def test_at_least_one_is_kept(tmp_path: Path, keep: Any) -> None:
    with ps.connect("inproc:") as client, pytest.raises(ps.InvalidArgument, match="give how many checkpoints stay"):
        TrainingCheckpoints(tmp_path, client, keep=keep)


def test_parts_of_any_kind_come_back(tmp_path: Path) -> None:
    kept = {"n": 3, "list": [1, (2.5, "x")], "tensor": torch.arange(3), "none": None}
    normal = torch.nn.BatchNorm1d(2)
    normal(torch.randn(8, 2))
    with ps.connect(inprocess.start()) as client:
        TrainingCheckpoints(tmp_path, client).save(1, {"counter": Counter(kept), "normal": normal})
    counter, again = Counter(None), torch.nn.BatchNorm1d(2)
    with ps.connect(inprocess.start()) as client:
        checkpoints = TrainingCheckpoints(tmp_path, client)
        assert checkpoints.restore_rows() == 1
        checkpoints.load({"counter": counter, "normal": again})
    assert repr(counter.state) == repr(kept)
    assert repr(again.state_dict()) == repr(normal.state_dict())


def test_a_service_that_has_gone_on_is_refused_or_rewound(tmp_path: Path) -> None:
    """Rewound, its rows are those of the checkpoint, and the run ends with the same bits."""
    address = inprocess.start(shards=2)
    run = Run(address, tmp_path, 0)
    run.train(9, save_at=6)
    with pytest.raises(ps.TableExists, match=r"is not new, so .* at step 6: .* drops its tables item, user and fills"):
        Run(address, tmp_path, 0)
    run.train(20)
    straight = run.ended()
    resumed = Run(address, tmp_path, 0, rewind=True)
    assert resumed.step == 6
    resumed.train(20)
    check_same(straight, resumed.ended())


def test_a_run_goes_on_with_another_number_of_shards(tmp_path: Path) -> None:
    run = Run(inprocess.start(shards=3), tmp_path, 0)
    run.train(8, save_at=6)
    run.train(20)
    resumed = Run(inprocess.start(), tmp_path, 0)
    resumed.train(20)
    check_same(run.ended(), resumed.ended())


def test_cores_of_a_tensor_train_table_are_not_dropped_for_a_rewind(tmp_path: Path) -> None:
    cold = ps.TensorTrain(rows=100, ranks=2)
    with ps.connect("inproc:") as client:
        client.create_table(ps.TableConfig(name="cores", dim=4, cold=cold))
        TrainingCheckpoints(tmp_path, client).save(1, {})
        with pytest.raises(ps.ConfigError, match="tables cores have tensor-train cores"):
            TrainingCheckpoints(tmp_path, client).restore_rows(rewind=True)
        assert list(client.tables()) == ["cores"]


def test_the_documented_lines_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    (program,) = (
        text for text in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "TrainingCheckpoints" in text
    )

    def ran(folder: str, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        names: dict[str, Any] = {}
        exec(program.replace("range(200)", f"range({batches})").replace("% 100", "% 10"), names)
        with names["client"] as client:
            return names["model"].weight.detach(), torch.as_tensor(client.pull("user", torch.arange(1000)))

    torch.manual_seed(1)
    weight, rows = ran("straight", 40)
    torch.manual_seed(1)
    ran("stopped", 27)  # the last seven are lost
    weight_again, rows_again = ran("stopped", 40)
    assert torch.equal(weight, weight_again)
    assert torch.equal(rows, rows_again)
