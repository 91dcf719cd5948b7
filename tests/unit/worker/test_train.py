"""The trainer's options, and what it says at the end."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import ps
from ps.cluster.ray.quiet import hush_ray
from ps.errors import InvalidArgument
from ps.nn import Asynchronous, Bounded, Group, Synchronous
from tests.conftest import StartServer
from tests.waiting import until
from worker.data.synthetic import Synthetic
from worker.report import shown as report
from worker.report.metrics import Progressive
from worker.train.command import app, main, place_of, train
from worker.train.ranks import Meeting
from worker.train.run import ALONE, EveryNth, run
from worker.train.service import disk_folder, service_address
from worker.train.settings import WIRE_DTYPES, Data, Settings, batches_ahead, table_configs


def test_every_wire_dtype_of_the_command_is_one_of_the_clients() -> None:
    assert set(get_args(get_type_hints(train)["wire_dtype"])) == set(WIRE_DTYPES)
    for dtype in WIRE_DTYPES.values():
        ps.connect("inproc:", wire_dtype=dtype).close()


def test_a_temporary_disk_is_gone_however_the_block_is_left() -> None:
    def interrupted() -> None:
        with disk_folder(None, no_disk=False) as folder:
            assert folder is not None
            (folder / "shard-0" / "rocksdb").mkdir(parents=True)
            seen.append(folder)
            raise KeyboardInterrupt

    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not seen[0].exists()


OWNER = """
import os, sys
from worker.train.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "shard-0").mkdir()
    (folder / "shard-0" / "CURRENT").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_trainer_is_removed_by_the_next_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    others = [tmp_path / "embedding-ps-without-lock", tmp_path / "other", tmp_path / "embedding-ps-file"]
    others[0].mkdir()
    others[1].mkdir()
    (others[1] / "owner.lock").touch()
    others[2].touch()
    (tmp_path / "embedding-ps-link").symlink_to(others[1])
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(owner.stdout.readline().strip()) for owner in owners if owner.stdout)
        owners[0].kill()
        owners[0].wait()
        assert (killed / "shard-0" / "CURRENT").exists()
        with disk_folder(None, no_disk=False):
            assert not killed.exists()
            assert (living / "shard-0" / "CURRENT").exists()
            assert all(other.exists() for other in others)
            assert (others[1] / "owner.lock").exists()
        owners[1].communicate()
        assert not living.exists(), "it has ended by itself"
    finally:
        for owner in owners:
            owner.kill()
            owner.communicate()


def test_the_last_lines_of_a_run_are_its_result(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--data synthetic --rows 2000 --dim 2 --batch-size 200 --swap-fraction 0 --depth 1 --service"
    monkeypatch.setattr("sys.argv", ["train", *options.split(), start_server().address])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    *_, well = lines = printed.out.splitlines()
    result = lines[len(lines) - lines[::-1].index("") :]
    assert re.fullmatch(r"2,000 samples in [\d.]+ s: [\d,]+ samples/s", result[0])
    assert re.fullmatch(r"progressive AUC, all: 0\.\d{4}   log loss: \d\.\d{4}", result[1])
    assert len(result) <= 7
    assert well == "all gradients are applied, the shard is well"


def test_rays_advice_to_turn_authentication_off_is_not_shown_and_that_it_is_off_is() -> None:
    pytest.importorskip("ray")
    from ray._private.authentication import authentication_token_setup as setup

    hush_ray()
    hush_ray()
    logger = setup.logger
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        setup._warn_token_auth_enabled()
        assert not records
        setup._warn_token_auth_disabled()
        assert "Anyone with network access" in records[0]
    finally:
        logger.removeHandler(handler)


def test_a_disk_that_was_asked_for_stays_and_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ssd").mkdir()
    with disk_folder(Path("ssd"), no_disk=False) as folder:
        assert folder == tmp_path / "ssd"
    assert folder.exists()


def test_no_disk_is_no_disk() -> None:
    with disk_folder(None, no_disk=True) as folder:
        assert folder is None


@pytest.mark.parametrize(
    ("service", "local", "disk", "no_disk", "words"),
    [
        ("", 0, None, False, "say where the rows live"),
        ("h:1", 2, None, False, "say where the rows live"),
        ("h:1", 0, Path("d"), False, "are for --local"),
        ("h:1", 0, None, True, "are for --local"),
        ("", 1, Path("d"), True, "choose one"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    service: str, local: int, disk: Path | None, no_disk: bool, words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words), service_address(service, local, disk, no_disk):
        pass


def test_one_trainer_exchanges_nothing_and_is_told_so() -> None:
    assert place_of(1, "h:1", 1.0) == ALONE
    assert place_of(2, "h:1", 0.1) == ALONE  # this process only starts the two
    with pytest.raises(InvalidArgument, match="--dense-density is for --trainers"):
        place_of(1, "h:1", 0.1)


def test_under_torchrun_the_environment_says_who_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    place = place_of(1, "h:1", 0.1)
    assert (place.rank, place.ranks, place.port) == (1, 2, None)
    for trainers, service in ((2, "h:1"), (1, "")):
        with pytest.raises(InvalidArgument, match="torchrun has started 2 trainers"):
            place_of(trainers, service, 1.0)


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 6])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_rank_makes_as_many_steps_and_no_batch_is_lost(rows: int, ranks: int) -> None:
    batches = list(Synthetic(rows=rows).batches(1))
    shares = [EveryNth(batches, Meeting(rank, ranks)) for rank in range(ranks)]
    steps = [list(share) for share in shares]
    assert {len(part) for part in steps} == {rows // ranks}
    in_turn = [batch for group in zip(*steps, strict=True) for batch in group]
    left = [share.leftover for share in shares if share.leftover is not None]
    assert [id(batch) for batch in in_turn + left] == [id(batch) for batch in batches]


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    answer = CliRunner().invoke(app, ["--service", "h:1", "--trainers", "3"])
    assert isinstance(answer.exception, InvalidArgument)
    assert "--batch-size 512 cannot be shared out evenly among 3 trainers" in str(answer.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--trainers 2 --mode fast", "choose one of hybrid, synchronous"),
        ("--mode synchronous", "one trainer waits for nobody"),
        ("--max-staleness 2", "one trainer waits for nobody"),
        ("--trainers 2 --mode synchronous --pull-ahead 1", "no --max-staleness and no --pull-ahead"),
        ("--trainers 2 --mode synchronous --max-staleness 0", "no --max-staleness and no --pull-ahead"),
    ],
)
def test_modes_that_do_not_go_together_are_refused(options: str, words: str) -> None:
    answer = CliRunner().invoke(app, ["--service", "h:1", *options.split()])
    assert isinstance(answer.exception, InvalidArgument)
    assert words in str(answer.exception)


def test_the_mode_of_the_embeddings_is_what_the_options_say() -> None:
    group = Group("run", 0, 2)
    assert Settings().mode_of(group) == Asynchronous()
    assert Settings(mode="synchronous").mode_of(group) == Synchronous(group)
    assert Settings(max_staleness=0).mode_of(group) == Bounded(group, 0)


def test_the_end_says_how_stale_rows_were(start_server: StartServer) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    settings = Settings(
        data=Data("synthetic", rows=2000), dim=2, batch_size=200, depth=1, swap_fraction=0.0, pull_ahead=1
    )
    with ps.connect(start_server().address) as client:
        share = run(ALONE, settings, client.address)
        report.how_stale(console, client, [share])
        (shard,) = client.stats()["shards"]
    text = console.export_text()
    assert share.staleness.by_pushes == {0: 1, 1: 9}
    assert "their rows lack: 0: 1, 1: 9" in text
    staleness = shard["staleness"]
    assert f"{staleness['total'] / staleness['pushes']:.2f} on average, {staleness['most']} at most" in text
    assert staleness["most"] <= 1


def test_one_class_of_labels_has_no_auc_and_the_end_says_so_in_words() -> None:
    metrics = Progressive()
    assert report.quality(metrics) == "none, there are no rows"
    metrics.add(np.array([0.5, 0.25]), np.array([0.0, 0.0]))
    assert report.quality(metrics) == "none, all 2 labels are 0   log loss: 0.4904"
    metrics.add(np.array([0.75]), np.array([1.0]))
    assert report.quality(metrics) == "1.0000   log loss: 0.4228"
    assert report.quality(metrics, slice(2, 3)) == "none, all 1 labels are 1   log loss: 0.2877"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"\x1f\x8b\x08", "ends early"), (b"", "has no lines"), (b"[red]\n", "none of 1 lines")],
)
def test_a_file_that_cannot_be_read_is_one_line_and_a_status(
    content: bytes | None,
    words: str,
    tmp_path: Path,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / (
        "a name that is longer than a terminal is wide " * 4 + ("[bold]" if content is not None else "absent")
    )
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(
        "sys.argv", ["train", "--data", "criteo", "--path", str(path), "--service", start_server().address]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("skipped")]
    assert f"{path}: " in line
    assert words in line


@pytest.mark.parametrize("text", ["{", "[1]", "C1: 3", "\x00"])
def test_a_file_of_table_settings_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tables.yaml").write_text(text)
    with pytest.raises(ps.ConfigError, match=rf"{tmp_path}/tables\.yaml") as caught:
        table_configs(Synthetic(rows=1), 4, "sgd", 0.1, 0.25, tmp_path / "tables.yaml")
    assert "\n" not in str(caught.value)


def test_depth_is_a_number_or_auto() -> None:
    assert [batches_ahead(text) for text in ("auto", "0", "7")] == ["auto", 0, 7]
    for text in ("-1", "deep", "1.5", ""):
        with pytest.raises(InvalidArgument, match="--depth"):
            batches_ahead(text)


def test_the_swap_fraction_is_every_tables_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    overrides = tmp_path / "tables.yaml"
    overrides.write_text("C3: {swap_fraction: 0.0}\n")
    configs = table_configs(Synthetic(rows=1), 4, "sgd", 0.1, 0.25, overrides)
    assert {config.name: config.swap_fraction for config in configs} == {
        f"C{i}": 0.0 if i == 3 else 0.25 for i in range(1, 27)
    }


def test_the_end_says_what_lives_where_and_what_moved(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(disk={"path": tmp_path})
    console = Console(record=True, width=160, file=io.StringIO())
    ids = np.arange(200)
    with ps.connect(server.address) as client:
        client.create_table(ps.TableConfig(name="clicks", dim=4, optimizer=ps.SGD()))
        client.push("clicks", ids, np.ones((200, 4), np.float32))
        until(lambda: client.stats()["shards"][0]["tables"]["clicks"]["rows"]["disk"] == 100)
        client.pull("clicks", ids)
        server.shard.core.disk_health.refused(ps.DiskFull("no room"))
        report.where_rows_live(console, client)
    lines = ["".join(line.split()) for line in console.export_text().splitlines()]
    assert any(line.startswith("│clicks│hot│100│") for line in lines)
    value = 10 + 13 + 16  # key, header, row
    assert f"│clicks│disk│100│{100 * value / 1000:.1f}kB│" in lines
    assert "┃table┃read┃updated┃created┃refused┃evicted┃expired┃" in lines
    assert "│clicks│200│200│200│0│0│0│" in lines
    assert "┃table┃raised┃demoted┃late┃" in lines
    assert "│clicks│0│100│100│" in lines
    assert "stepspreparedonashard:0ofthemexpiredunused:0" in lines
    assert "shard0isdegraded:rowscannotgodowntodisk:noroom" in lines
