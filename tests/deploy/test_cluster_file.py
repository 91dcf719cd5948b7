"""deploy/cluster.yaml and its on-premise variant by Ray's own schema, and what must agree between the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler._private.util import prepare_config, validate_config

from deploy.merge import merge
from ps.cluster.ray.deployment import Deployment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICE = Deployment.from_yaml(DEPLOY / "service.yaml")


def load(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return values


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does it, defaults and all."""
    ready: dict[str, Any] = prepare_config(config)
    validate_config(ready)
    return ready


@pytest.fixture(params=["aws", "on-premise"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    base = load("cluster.yaml")
    return base if request.param == "aws" else merge(base, load("on-premise.yaml"))


def test_ray_takes_it(cluster: dict[str, Any]) -> None:
    ready = prepared(cluster)
    assert ready["head_node_type"] in ready["available_node_types"]
    assert set(cluster) <= set(ready) | {"min_workers"}, "Ray has dropped nothing that we set"


def test_ray_would_say_what_is_wrong(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="setup_command"):
        prepared(cluster | {"setup_command": []})


def test_the_head_starts_the_service_from_the_file_that_is_copied_to_it(cluster: dict[str, Any]) -> None:
    start = cluster["head_start_ray_commands"]
    assert "ray start --head" in start[-2]
    assert start[-1] == "psctl up --ray-address auto --config ~/embedding-ps/deploy/service.yaml"
    assert cluster["file_mounts"]["~/embedding-ps/deploy"] == "deploy"


def test_every_kind_of_node_is_set_up(cluster: dict[str, Any]) -> None:
    """What a kind of node says takes the place of setup_commands, in Ray."""
    ready = prepared(cluster)
    kinds = [
        kind.get("worker_setup_commands", ready["setup_commands"]) for kind in ready["available_node_types"].values()
    ]
    for commands in [*kinds, ready["head_setup_commands"]]:
        assert commands[0].startswith("~/embedding-ps/deploy/install.sh")
        assert "RAY_AUTH_MODE=token" in commands[1]
        for command in commands:
            script = command.split()[0]
            if script.startswith("~/embedding-ps/"):
                assert os.access(ROOT / script.removeprefix("~/embedding-ps/"), os.X_OK)


def test_what_is_copied_exists_and_is_enough_to_install(cluster: dict[str, Any]) -> None:
    copied = {source for source in cluster["file_mounts"].values() if not source.startswith("~")}
    assert all((ROOT / source).exists() for source in copied)
    assert copied >= {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ps", "worker"}


def test_the_nodes_that_are_there_from_the_beginning_hold_all_shards() -> None:
    shard = load("cluster.yaml")["available_node_types"]["shard"]
    (resource,) = SERVICE.launch.placement.resources
    assert shard["min_workers"] * shard["resources"][resource] == SERVICE.launch.shards
    assert shard["resources"]["CPU"] >= shard["resources"][resource] * SERVICE.launch.placement.cpus


def test_the_shards_of_a_node_fit_its_memory_and_disk() -> None:
    """i4i.2xlarge: 64 GiB of RAM, 1,875 GB of SSD."""
    shard = load("cluster.yaml")["available_node_types"]["shard"]
    assert shard["node_config"]["InstanceType"] == "i4i.2xlarge"
    assert SERVICE.service.memory.ram_bytes is not None
    assert SERVICE.service.disk.max_bytes is not None
    assert 1.2 * 8 * SERVICE.service.memory.ram_bytes < 64 * 2**30
    assert 8 * SERVICE.service.disk.max_bytes < 1875e9
    assert str(SERVICE.service.disk.path).startswith(shard["worker_setup_commands"][-1].split()[-1])


def test_the_merge_command_prints_what_merge_says() -> None:
    command = [sys.executable, "deploy/merge.py", "deploy/cluster.yaml", "deploy/on-premise.yaml"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(printed) == merge(load("cluster.yaml"), load("on-premise.yaml"))


def test_merging_by_the_examples_of_its_rfc() -> None:
    """RFC 7386, appendix A, as far as YAML files have it."""
    assert merge({"a": "b"}, {"a": "c"}) == {"a": "c"}
    assert merge({"a": "b"}, {"b": "c"}) == {"a": "b", "b": "c"}
    assert merge({"a": "b", "b": "c"}, {"a": None}) == {"b": "c"}
    assert merge({"a": ["b"]}, {"a": "c"}) == {"a": "c"}
    assert merge({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}) == {"a": {"b": "d"}}
    assert merge({"a": [{"b": "c"}]}, {"a": [1]}) == {"a": [1]}
    assert merge({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}


TREES = st.recursive(
    st.integers() | st.none(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
)


@given(st.dictionaries(st.sampled_from("abc"), TREES), TREES)
def test_merging_twice_is_merging_once(base: dict[str, Any], override: Any) -> None:
    once = merge(base, override)
    assert merge(once, override) == once
