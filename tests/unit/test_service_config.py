"""Settings of a service: nested by kind, sizes as people write them, and clear words for those who write them flat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.config import yaml_file
from ps.config.sizes import UNITS, bytes_of, is_size, written
from ps.errors import ConfigError

ONCE = {
    **{"host": "network.host", "stall_timeout_s": "network.stall_timeout_s"},
    **{"drain_timeout_s": "network.drain_timeout_s", "max_requests": "limits.max_requests"},
    **{"max_connections": "limits.max_connections", "max_message_bytes": "limits.max_message_bytes"},
    **{"max_ids": "limits.max_ids", "max_body_bytes": "limits.max_body_bytes"},
    **{"ledger_window": "limits.ledger_window", "max_ledger_bytes": "limits.max_ledger_bytes"},
    **{"ram_bytes": "memory.ram_bytes", "gpu_bytes": "memory.gpu_bytes"},
    **{"disk_path": "disk.path", "disk_bytes": "disk.max_bytes"},
    **{"grpc_threads": "performance.grpc_threads", "disk_cache_bytes": "performance.disk_cache_bytes"},
    **{"prepare_ttl_s": "performance.prepare_ttl_s", "max_steps": "performance.max_steps"},
    **{"max_steps_bytes": "performance.max_steps_bytes", "metrics": "watching.metrics"},
    **{"log_format": "watching.log_format", "tracing": "watching.tracing"},
    **{"discovery_path": "watching.discovery_path"},
}
"""Names of settings when all were on the top level -> where they are."""


def test_every_flat_name_is_told_its_new_one_and_all_at_once(tmp_path: Path) -> None:
    flat = {name: 1 for name in ONCE}
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(flat))
    for make in (
        lambda: ps.ServiceConfig(**flat),
        lambda: ps.ServiceConfig.from_json(json.dumps(flat)),
        lambda: ps.ServiceConfig.from_yaml(path),
    ):
        with pytest.raises(ConfigError) as raised:
            make()
        assert {field: says.partition(" (got ")[0] for field, says in raised.value.problems} == {
            name: f"is now {there}" for name, there in ONCE.items()
        }


def test_every_setting_that_is_there_is_found_where_its_flat_name_says() -> None:
    there = {f"{kind}.{name}" for kind, part in ps.ServiceConfig().model_dump().items() for name in part}
    never_flat = ("log.", "checkpoint.")
    assert {setting for setting in there if not setting.startswith(never_flat)} == set(ONCE.values())


def test_a_kind_with_nothing_below_it_is_its_defaults(tmp_path: Path) -> None:
    """As a file is in which somebody has commented out every line of a kind."""
    path = tmp_path / "service.yaml"
    path.write_text("memory:\n  # ram_bytes: 8GiB\ndisk:\nlimits: {max_ids: 5}\n")
    assert ps.ServiceConfig.from_yaml(path) == ps.ServiceConfig(limits={"max_ids": 5})


def test_a_copy_that_differs_is_checked_like_any_other() -> None:
    config = ps.ServiceConfig(disk={"path": "ssd", "max_bytes": "1GiB"}, limits={"max_ids": 5})
    assert config.having(disk={"max_bytes": None}) == ps.ServiceConfig(disk={"path": "ssd"}, limits={"max_ids": 5})
    for wrong in ({"disk": {"pth": 1}}, {"disc": {}}, {"disk": {"path": None}}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            config.having(**wrong)


def test_a_rhythm_of_checkpoints_needs_a_path() -> None:
    with pytest.raises(ConfigError, match=r"every_s is 60, and there is no path: set checkpoint.path"):
        ps.ServiceConfig(checkpoint={"every_s": 60})
    assert ps.ServiceConfig(checkpoint={"every_s": 60, "path": "s3://there/it/is"}).checkpoint.every_s == 60


def test_a_log_needs_a_path() -> None:
    for mode in ("interval", "sync"):
        with pytest.raises(ConfigError, match=rf"mode is '{mode}', and there is no path: set log.path"):
            ps.ServiceConfig(log={"mode": mode})
        assert ps.ServiceConfig(log={"mode": mode, "path": "here"}).log.mode == mode
    assert ps.ServiceConfig(log={"path": "here"}).log.mode == "off", "it may stay there while the log is off"


# sizes

SIZES = {
    **{"8GiB": 8 << 30, "8GB": 8 * 10**9, "512 MiB": 512 << 20, "64kib": 64 << 10, "64KB": 64_000},
    **{"1.5TiB": 3 << 39, "2TB": 2 * 10**12, "1073741824": 1 << 30, "7B": 7, "1e9": 10**9, " 1_000 ": 1000},
    **{"1,000,000": 1_000_000, "0": 0, "0.1GB": 100_000_000, "9007199254740993": 9007199254740993},
}
NO_SIZES = [
    *("", "8G", "8Gi", "GiB", "-5", "1.2.3GiB", "8GiB more", "8Gbit", "8 8GiB"),
    *("nan", "1e", "inf", "0x10", "1e999", "\uff11GiB"),
]


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_a_size_is_read_as_it_is_written(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_told_how_sizes_are_written(text: str) -> None:
    with pytest.raises(ConfigError, match=r"memory.ram_bytes: .* is no size: write .* 8GiB \(8 x 1024\^3 bytes\), 8GB"):
        ps.ServiceConfig(memory={"ram_bytes": text})


@given(st.integers(0, 1 << 60) | st.sampled_from([factor * n for factor in UNITS.values() for n in (1, 3, 1024)]))
def test_what_is_written_is_read_as_the_same_number(size: int) -> None:
    assert bytes_of(written(size)) == size


def test_sizes_are_shown_in_the_largest_unit_that_is_exact() -> None:
    sizes = {0: "0", 1: "1", 1 << 10: "1KiB", 1536: "1536", 3 << 40: "3TiB", 1 << 50: "1024TiB"}
    assert {size: written(size) for size in sizes} == sizes


def test_every_number_of_bytes_is_a_size_and_travels_as_a_number(tmp_path: Path) -> None:
    defaults = ps.ServiceConfig(disk={"path": tmp_path})
    sizes = {
        kind: {name: "1GiB" for name, field in type(getattr(defaults, kind)).model_fields.items() if is_size(field)}
        for kind in defaults.model_dump()
    }
    named = {name for part in ps.ServiceConfig().model_dump().values() for name in part if name.endswith("bytes")}
    assert named <= {name for part in sizes.values() for name in part} | {"ram_bytes", "gpu_bytes", "max_bytes"}
    sizes["memory"] = {"ram_bytes": "1GiB", "gpu_bytes": "1GiB"}
    sizes["disk"] = {"max_bytes": "1GiB"}
    config = defaults.having(**sizes)
    told = json.loads(config.to_json())
    assert {told[kind][name] for kind, part in sizes.items() for name in part} == {1 << 30}
    assert ps.ServiceConfig.from_json(config.to_json()) == config


def test_a_table_has_no_number_of_bytes_yet() -> None:
    """Whoever adds one makes it a `ByteSize`."""
    assert not [name for name in ps.TableConfig.model_fields if name.endswith("bytes")]


@pytest.mark.parametrize("file", ["deploy/service.yaml", "docker/service.yaml"])
def test_the_files_that_come_along_have_sizes_as_people_write_them(file: str) -> None:
    settings = yaml_file.load(Path(__file__).parents[2] / file)
    assert settings["memory"]["ram_bytes"].endswith("GiB")
