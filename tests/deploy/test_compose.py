"""docker/compose.yaml by the Compose specification, and what it refers to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from ps.cluster.ray.deployment import Deployment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]


def mounts(service: str) -> dict[str, str]:
    """Source -> path in the container."""
    split = (volume.split(":") for volume in SERVICES[service]["volumes"])
    return {parts[0]: parts[1] for parts in split}


def test_it_is_a_compose_file() -> None:
    assert set(PyCompose.from_yaml(FILE.read_text()).service_names()) == {"service", "trainer", "prometheus", "grafana"}


def test_the_parser_would_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="shm_sizes"):
        PyCompose.from_yaml(FILE.read_text().replace("shm_size", "shm_sizes"))


def test_what_it_mounts_and_builds_exists() -> None:
    for service in SERVICES:
        sources = mounts(service) if "volumes" in SERVICES[service] else {}
        for source in sources:
            if source.startswith("."):
                assert (FILE.parent / source).exists(), source
        if "build" in SERVICES[service]:
            assert (ROOT / SERVICES[service]["build"]["dockerfile"]).exists()


def test_the_service_has_two_shards_where_the_trainer_and_prometheus_look_for_them() -> None:
    deployment = Deployment.from_yaml(ROOT / "docker" / "service.yaml")
    assert deployment.launch.shards == 2
    assert SERVICES["trainer"]["command"][-1] == f"service:{deployment.launch.port}"
    assert mounts("service")["rows"] == str(deployment.service.disk.path)
    assert mounts("service")["targets"] == str(deployment.service.watching.discovery_path)
    assert mounts("prometheus")["targets"] == "/etc/prometheus/targets"
