"""A service file: settings of the service, and below `launch` what to start where."""

from __future__ import annotations

from pathlib import Path

import pytest

import ps
from ps.cluster.ray.deployment import Deployment, Launch

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(folder: Path, text: str) -> Deployment:
    path = folder / "service.yaml"
    path.write_text(text)
    return Deployment.from_yaml(path)


def test_the_service_file_that_comes_along_reads_as_it_says() -> None:
    deployment = Deployment.from_yaml(DEPLOY / "service.yaml")
    assert (deployment.launch.shards, deployment.launch.port) == (16, 7370)
    assert deployment.launch.placement.bundle == {"CPU": 1, "ps_shard": 1}
    assert deployment.launch.placement.strategy == "SPREAD"
    assert deployment.service.network.host == "auto"
    assert deployment.service.disk.path == Path("/mnt/nvme/embedding-ps")
    assert Deployment.from_json(deployment.to_json()) == deployment, "it goes to the keeper as JSON"


def test_a_file_of_settings_alone_launches_one_shard_anywhere(tmp_path: Path) -> None:
    deployment = read(tmp_path, "limits: {max_ids: 1000}\n")
    assert deployment == Deployment(service=ps.ServiceConfig(limits={"max_ids": 1000}))
    assert deployment.launch == Launch(shards=1, port=0, placement=ps.Placement(), timeout_s=120)
    assert read(tmp_path, "") == Deployment()


def test_options_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("limits: {max_ids: 1000}\nlaunch: {shards: 3, port: 7000}\n")
    assert Deployment.of(path, shards=2, port=None) == Deployment(
        launch=Launch(shards=2, port=7000), service=ps.ServiceConfig(limits={"max_ids": 1000})
    )
    assert Deployment.of(None, port=0) == Deployment()
    with pytest.raises(ps.ConfigError, match="port"):
        Deployment.of(path, port=70_000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("shards: 2\n", r"\bshards: .*\(got 2\)"),
        ("launch: {shard: 2}\n", r"\bshard: .*\(got 2\)"),
        ("launch: {shards: 0}\n", "shards: Input should be greater"),
        ("launch: {port: 70000}\n", "port: Input should be less"),
        ("launch: {placement: {cpu: 1}}\n", r"placement.*cpu: .*\(got 1\)"),
        ("launch: {placement: {cpus: 0}}\n", "reserves nothing cannot be placed"),
        ("launch: {placement: {strategy: ROUND}}\n", "strategy: Input should be 'SPREAD'"),
        ("launch: {limits: {max_ids: 1}}\n", r"\blimits: no such setting \(got {'max_ids': 1}\)"),
        ("max_ids: 1\nram_bytes: 2\n", r"max_ids: is now limits.max_ids .*; ram_bytes: is now memory.ram_bytes"),
        ("launch: 3\n", "launch: expected a mapping of settings, found int"),
        ("- 1\n", "expected a mapping of settings, found list"),
    ],
)
def test_what_is_wrong_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ps.ConfigError, match=complaint):
        read(tmp_path, text)


def test_what_a_shard_reserves() -> None:
    placement = ps.Placement(cpus=2, gpus=0.5, resources={"ps_shard": 1})
    assert placement.bundle == {"CPU": 2, "GPU": 0.5, "ps_shard": 1}
    assert str(placement) == "2 CPUs, 0.5 GPUs, 1 ps_shard"
    assert ps.Placement(cpus=0, resources={"ps_shard": 1}).bundle == {"ps_shard": 1}


def test_a_service_on_ray_may_have_a_log(tmp_path: Path) -> None:
    assert read(tmp_path, "log: {mode: sync, path: here}").service.log.mode == "sync"
