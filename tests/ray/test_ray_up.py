"""deploy/cluster.yaml with deploy/on-premise.yaml, for real: `ray up`, a trainer from outside, `ray down`.

Four machines made of namespaces: the operator's, a head and two nodes. What differs from the files as they are: a
node's virtual environment is this one instead of one that pip makes, and shards are two, small ones.
"""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

import pytest
import yaml

from deploy.merge import merge
from tests.machines import HOME, LOOK, Machine, machines

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
OPERATOR, HEAD, *NODES = "192.0.2.1", "192.0.2.10", "192.0.2.11", "192.0.2.12"
SMALL = {
    "memory": {"ram_bytes": "256MiB"},
    "disk": {"max_bytes": "1GiB"},
    "performance": {"disk_cache_bytes": "16MiB"},
    "launch": {"shards": 2},
}


def cluster_file(folder: Path) -> Path:
    """As deploy/on-premise.yaml says how to make it, with two more overrides."""
    service = folder / "service.yaml"
    service.write_text(yaml.safe_dump(merge(yaml.safe_load((ROOT / "deploy/service.yaml").read_text()), SMALL)))
    base, on_premise = (
        yaml.safe_load((ROOT / "deploy" / name).read_text()) for name in ("cluster.yaml", "on-premise.yaml")
    )
    (environment,) = [command for command in on_premise["setup_commands"] if ".bashrc" in command]
    ours = {
        "setup_commands": [
            f"ln -sfn {sys.prefix} ~/venv",
            environment,
            """echo 'export PYTHONPATH="$HOME/embedding-ps"' >> ~/.bashrc""",
        ],
        "file_mounts": {f"{HOME}/embedding-ps/deploy/service.yaml": str(service)},
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(functools.reduce(merge, [base, on_premise, ours]), sort_keys=False))
    return path


def test_ray_up_training_from_outside_ray_down(tmp_path: Path) -> None:
    ray = str(Path(sys.executable).parent / "ray")
    cluster = str(cluster_file(tmp_path))
    with machines(tmp_path, [OPERATOR, HEAD, *NODES]) as (operator, head, *nodes):
        for node in nodes:
            node.run("bash", "-c", """echo '{"ps_shard": 1}' > ~/ps_resources.json""", timeout_s=10)
        operator.run(ray, "get-auth-token", "--generate", timeout_s=120)
        up = operator.run("env", "RAY_UP_enable_autoscaler_v2=0", ray, "up", "--yes", cluster, timeout_s=600)
        assert f"service default with 2 shards at {HEAD}:7370" in up

        trained = operator.run(
            *(sys.executable, "-m", "worker.train", "--data", "flights", "--batch-size", "8192"),
            *("--service", f"{HEAD}:7370"),
            timeout_s=300,
        )
        auc = re.search(r"progressive AUC, last two months: ([\d.]+)", trained)
        assert auc is not None, trained
        assert float(auc[1]) > 0.65
        look = (sys.executable, "-c", LOOK, f"{HEAD}:7370")
        *shards, one, other = operator.run(*look, timeout_s=60).split()
        assert {one, other} == {"cross", "field"}
        assert sorted(shard.partition(":")[0] for shard in shards) == NODES, "one on each node, as ps_shard says"
        for node in nodes:
            assert "shard-" in node.run("ls", "/mnt/nvme/embedding-ps", timeout_s=10)

        again = "psctl down && psctl up --ray-address auto --config ~/embedding-ps/deploy/service.yaml"
        assert f"at {HEAD}:7370" in operator.run(ray, "exec", cluster, again, timeout_s=200)
        assert len(operator.run(*look, timeout_s=60).split()) == 2, "shards of a new service, without tables"

        operator.run(ray, "down", "--yes", cluster, timeout_s=120)
        assert not ray_processes(head)


def ray_processes(machine: Machine) -> list[str]:
    listed = machine.run("ps", "-eo", "args", timeout_s=10).splitlines()
    return [line for line in listed if "raylet" in line or "gcs_server" in line]
