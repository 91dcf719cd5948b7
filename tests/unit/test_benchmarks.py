"""Every benchmark runs at small size and says what it promises. Nothing here asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.durability.points import POINTS
from benchmarks.harness.measure import Contender, Rounds, interleave
from benchmarks.harness.report import REPOSITORY, Report
from benchmarks.harness.sizes import QUICK
from benchmarks.service.attacks import ATTACKS
from benchmarks.wire import link

TT = (
    *("rank8", "rank16", "rank32", "rank64", "rank8_hot", "hashed_as_rank32", "evicted_as_rank32"),
    *("short_as_rank32", "hashed_as_rank8", "fp16"),
)
DCT = (
    *("default", "default_int8"),
    *(f"topk_{percent}{end}" for percent in (1, 5, 20) for end in ("", "_no_feedback")),
    *(
        "topk_10",
        "topk_5_warm_up",
        "topk_5_elements",
        "relaxed",
        "by_importance",
        "fp16",
        "int8",
        "topk_10_fp16",
        "topk_10_int8",
    ),
)
DCT_FEW = ("default", "default_int8", "topk_5", "topk_10", "topk_20")
DCT_POOLED = (
    "default",
    *(f"{way}topk_{percent}" for way in ("", "pooled_") for percent in (2, 10)),
    *("pooled", "pooled_masked_20", "pooled_masked_50", "pooled_both"),
)
PUSHES = ("push", "push_two_at_once", "small_push", "small_push_two_at_once")
PROMISED = {
    "index": {
        ("find", "million_ids_per_s"),
        ("find_half_absent", "million_ids_per_s"),
        ("find_or_insert_present", "million_ids_per_s"),
        ("find_or_insert_absent", "million_ids_per_s"),
        ("erase", "million_ids_per_s"),
        ("full", "bytes_per_id"),
        ("growing", "longest_stall_ms"),
    },
    "gather": {("raw", "rows_per_s"), ("engine", "lookup_vs_raw"), ("numpy_fancy", "peer_vs_raw")},
    "update": {
        (optimizer, metric)
        for optimizer in ("sgd", "rowwise_adagrad", "adagrad", "adam", "ftrl")
        for metric in ("table_rows_per_s", "kernel_rows_per_s", "table_vs_numpy")
    },
    "unique": {
        (case, metric)
        for case in ("random", "skewed")
        for metric in ("unique_vs_numpy", "has_duplicates_million_per_s", "segment_sum_million_per_s")
    },
    "codec": {
        *((case, f"{way}_vs_memcpy") for case in ("ids", "rows_fp32", "rows_fp16") for way in ("encode", "decode")),
        ("small_rows_fp32", "encode_vs_repeated_float"),
    },
    "encodings": {
        *(
            (f"{layout}_{numbers}_0.05", metric)
            for layout in ("rows", "elements")
            for numbers in ("fp32", "fp16", "int8")
            for metric in ("bytes_saved_factor", "encode_time_vs_sending", "decode_time_vs_sending")
        ),
        *((f"ids_{ids}", "bytes_an_id") for ids in ("10_7", "hashed")),
    },
    "echo": {(case, "gb_per_s") for case in ("grpc_pull", "grpc_push", "tcp_pull", "tcp_push")},
    "pull": {
        *((form, metric) for form in ("one_shot", "step") for metric in ("rows_per_s", "vs_echo", "vs_tcp")),
        ("memory", "beyond_row_bytes_per_row"),
        ("memory", "rss_growth_bytes_per_row"),
    },
    "step": {(way, metric) for way in ("inproc", "grpc") for metric in ("steps_per_s", "rows_per_s", "dedupe_share")},
    "scale": {
        *((f"{call}_rows_20000", "nanoseconds_per_row") for call in ("pull", "push")),
        *((f"{call}_shards_4", "speed_vs_one_shard") for call in ("pull", "push")),
    },
    "fanout": {(f"shards_{n}", metric) for n in (4, 16) for metric in ("time_vs_one_shard", "cpu_us_a_call_more")},
    "disk": {
        *((f"{heat}_{who}", "rows_per_s") for heat in ("warm", "cold") for who in ("ours", "plain", "plain_4_threads")),
        *((f"{heat}_ours", metric) for heat in ("warm", "cold") for metric in ("vs_plain", "vs_plain_threads")),
        *((case, "rows_per_s") for case in ("write_new", "write_new_and_compact", "overwrite")),
        *((f"filter_{kind}", f"{ids}_million_per_s") for kind in ("sized", "grown") for ids in ("present", "absent")),
        ("full", "bytes_per_row_on_disk"),
    },
    "swap": {
        *((case, "speed_vs_ram") for case in ("half_on_disk", "half_unprepared", "ram_1_37")),
        ("half_on_disk", "critical_path_misses"),
    },
    "budget": {
        *(("growing", metric) for metric in ("peak_rss_vs_ram_bytes", "memory_usage_vs_rss", "speed_vs_unlimited")),
    },
    "trace": {
        *((f"web12_{room}", metric) for room in (0.01, 0.5) for metric in ("hit_rate", "hit_rate_placed_by_512")),
        ("half_on_disk", "late_share"),
    },
    "evict": {(case, "auc") for case in ("unlimited", "default", "importance", "lru", "lfu")},
    "ttspeed": {
        *(
            (case, f"{what}_vs_{peer}")
            for case in ("rank16", "rank32", "rank64", "q2x2x4_rank32")
            for what in ("forward", "forward_backward")
            for peer in ("einsum", "torch_grouped", "dense")
        ),
        *(
            ("rank16", metric)
            for metric in ("forward_rows_per_s", "forward_backward_rows_per_s", "compression_vs_dense")
        ),
        *(("step", metric) for metric in ("step_time_vs_dense", "ram_bytes_vs_dense")),
    },
    "ttquality": {
        *((f"{stream}_whole", "seed_noise") for stream in ("synthetic", "bursty", "flights")),
        *(
            (f"{stream}_{case}", metric)
            for stream in ("synthetic", "bursty", "flights")
            for case in TT
            for metric in ("auc", "log_loss", "compression", "auc_difference")
        ),
    },
    "dctquality": {
        *((f"{stream}_dense", "seed_noise") for stream in ("synthetic", "bursty", "flights", "bags")),
        *(
            (f"{stream}_{case}", metric)
            for stream, cases in (("synthetic", DCT), ("bursty", DCT_FEW), ("flights", DCT), ("bags", DCT_POOLED))
            for case in cases
            for metric in (
                *("auc", "log_loss", "auc_difference"),
                *(f"{kind}_bytes_saved_factor" for kind in ("push", "pull", "step")),
            )
        ),
    },
    "link": {
        (rate, metric)
        for rate in ("100mbit", "1gbit")
        for metric in (
            "step_time_saved_percent",
            "plain_bytes_per_step",
            "compressed_bytes_per_step",
            "bytes_saved_factor",
        )
    },
    "wirebytes": {
        *(
            (f"{part}_{case}", metric)
            for part in ("push", "exchange")
            for case in (
                *(f"{density}_percent" for density in (1, 5, 20)),
                *(f"{density}_percent_elements_{numbers}" for density in (1, 5, 20) for numbers in ("fp16", "fp32")),
                *(f"{density}_percent_rows_fp32" for density in (1, 5, 20)),
                *(f"5_percent_rows_{numbers}" for numbers in ("int8", "by_importance")),
                "day_one",
            )
            for metric in ("bytes_saved_factor", "bound_factor", "times_bound")
        ),
        *(
            (f"exchange_{case}", f"bytes_{kind}")
            for case in ("dense", "1_percent", "5_percent", "20_percent")
            for kind in ("ids", "flags", "rows", "gradients", "headers", "framing")
        ),
        *((f"push_{case}", "new_rows_share") for case in ("5_percent", "day_one")),
        *(
            (f"pooled_{case}", metric)
            for case in (1, 2, 3, 5, 10, 30, 100, "1_to_100")
            for metric in ("bytes_saved_factor", "auto_saved_factor", "dct_saved_factor")
        ),
        *(
            (f"{part}{widths}", "bytes_saved_factor")
            for part in ("step", "dense_part")
            for widths in ("", "_criteo_tb")
        ),
    },
    "attack": {
        (name, figure)
        for name in ATTACKS
        for figure in ("p99_ms_without", "p99_ms_under", "p99_ms_after", "p99_under_vs_without", "refused_for_good")
    },
    "safety": {
        *((f"{kind}_{mode}", "speed_vs_off") for kind in (*PUSHES, "flights") for mode in ("interval", "sync")),
        *(("disk", f"sync_ms_{name}") for name in ("4KiB", "of_a_push")),
    },
    "checkpoint": {
        *(("full_idle", metric) for metric in ("write_vs_disk", "gb_per_s")),
        *(
            ("full_loaded", metric)
            for metric in ("push_p99_vs_without", "extra_ram_vs_shard", "peak_vs_ram_bytes", "write_vs_disk")
        ),
        ("increment", "incremental_bytes_vs_full"),
        ("restored", "restore_rows_per_s"),
    },
    "crash": {
        *(("sync", metric) for metric in ("lost", "doubled", "recovered_is_prefix", "acknowledged")),
        *(("checkpoints", what) for what in ("made", "failed", "damaged")),
        *(("kills", who) for who in ("shard", "coordinator", "trainer")),
        *((metric, point) for metric in ("reached", "missed") for point in POINTS),
    },
    "untouched": {
        ("tables_200", "engine_time_vs_tables_10"),
        ("steps_64", "engine_time_vs_tables_10"),
        ("steps_64_moving", "engine_time_vs_steps_0_moving"),
    },
    "startup": {("import_ps", "seconds"), ("to_first_pull", "seconds")},
}
PROMISED["push"] = PROMISED["pull"]
"""(case, metric) that others rely on."""


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout


MAY_BE_NONE = {
    *("extra_ram_vs_shard", "lost", "doubled", "failed", "damaged", *POINTS),
    "refused_for_good",
    "sums_wrong",
    "critical_path_misses",
    "rows_evicted",
    "late_share",
    "waited_share",
    "share_in_cores",
    "new_rows_share",
    "bytes_flags",
}
"""All is well, or there was no need."""
MAY_BE_NEGATIVE = {
    *("auc_difference", "auc_difference_least", "auc_difference_most", "step_time_saved_percent"),
}
"""Luck, or better than what it is compared with."""


def figures(*arguments: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*arguments, "--quick", "--json").splitlines()]


def check(found: list[dict[str, object]], name: str) -> None:
    mine = [figure for figure in found if figure["bench"] == name]
    for figure in mine:
        assert list(figure) == ["bench", "case", "metric", "value"]
        assert isinstance(figure["value"], float)
        if figure["metric"] not in MAY_BE_NEGATIVE:
            assert figure["value"] > 0 or (figure["metric"] in MAY_BE_NONE and figure["value"] == 0), figure
    assert {(figure["case"], figure["metric"]) for figure in mine} >= PROMISED[name]


def test_no_name_and_help_list_every_benchmark_on_a_line() -> None:
    for text in (run(), run("--help")):
        for name, (_, line) in BENCHMARKS.items():
            assert f"  {name:8} {line}" in text.splitlines()


def test_an_unknown_name_is_refused_with_the_names_that_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "pul"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown: pul" in done.stderr
    assert "  pull " in done.stderr


def test_the_text_form_starts_with_where_it_was_measured() -> None:
    lines = run("codec", "--quick").splitlines()
    header = [line for line in lines if line.startswith("#")]
    for what in ("commit", "cpu", "cores", "ram_gib", "python", "numpy", "numba", "grpcio", "sizes"):
        assert any(line.startswith(f"# {what}: ") for line in header)
    assert all(line.startswith("codec ") for line in lines[len(header) :])


def test_rounds_are_interleaved_in_turning_order_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    turns: list[int] = []
    contenders = {name: Contender(lambda _, name=name: order.append(name), turns.append) for name in "abc"}
    rounds = interleave(2, contenders, warm_up=1)
    assert "".join(order) in ("abccbaabc", "cbaabccba")
    assert turns == list(range(9))
    assert {name: len(seconds) for name, seconds in rounds.seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_taken_round_by_round_and_above_one_is_faster() -> None:
    rounds = Rounds({"ours": [1.0, 4.0], "theirs": [2.0, 2.0]})
    assert rounds.speed_ratio("ours", "theirs") == [2.0, 0.5]
    assert rounds.time_share("theirs", "ours") == [2.0, 0.5]
    assert rounds.per_second("ours", 8) == [8.0, 2.0]


def test_a_figure_is_the_median(capsys: pytest.CaptureFixture[str]) -> None:
    Report("pull", as_json=True).add("step", "vs_echo", [0.7, 0.9, 0.8])
    assert json.loads(capsys.readouterr().out) == {"bench": "pull", "case": "step", "metric": "vs_echo", "value": 0.8}
    Report("pull", as_json=False).add("step", "vs_echo", [0.7, 0.9, 0.8])
    assert capsys.readouterr().out.split() == ["pull", "step", "vs_echo", "0.8", "0.7", "..", "0.9"]


def test_every_benchmark_is_promised_something() -> None:
    assert set(PROMISED) == set(BENCHMARKS)


@pytest.mark.slow
def test_kernel_benchmarks_run_and_keep_their_promises() -> None:
    names = ["index", "gather", "update", "unique", "codec", "encodings", "disk"]
    found = figures(*names)
    for name in names:
        check(found, name)


@pytest.mark.slow
@pytest.mark.timeout(900)  # sixteen of them
def test_all_other_benchmarks_run_and_keep_their_promises() -> None:
    names = ["echo", "pull", "push", "step", "scale", "swap", "budget", "evict", "untouched"]
    names += ["ttspeed", "ttquality", "dctquality", "wirebytes", "attack", "safety", "checkpoint", "startup"]
    found = figures(*names)
    for name in names:
        check(found, name)


@pytest.mark.slow
def test_no_acknowledged_push_is_lost_or_doubled_through_thirty_kills() -> None:
    found = [json.loads(line) for line in run("crash", "--kills", "30", "--json").splitlines()]
    check(found, "crash")
    value = {(figure["case"], figure["metric"]): figure["value"] for figure in found}
    assert value["sync", "lost"] == value["sync", "doubled"] == value["checkpoints", "damaged"] == 0
    assert value["sync", "recovered_is_prefix"] == 1
    assert sum(value["kills", who] for who in ("shard", "coordinator", "trainer")) == 30
    assert {point for point in POINTS if value["reached", point] == 0 or value["missed", point]} == set()


@pytest.mark.slow
@pytest.mark.usefixtures("link_ends")
def test_link_runs_and_keeps_its_promises() -> None:
    check(figures("link"), "link")


def test_link_without_its_tools_says_so_in_one_line_and_reports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    link.run(Report("link", as_json=True), QUICK)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "link: skipped: there is no command `unshare`: run tests/install_packages.sh\n"
