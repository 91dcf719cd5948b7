"""deploy/kuberay.yaml: its pods by Kubernetes' own schemas, strictly; the RayCluster by the reader that Ray has for it.

The operator's schema for RayCluster comes in no package, so the keys that this file uses are written out here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _generate_available_node_types_from_ray_cr_spec

from ps.cluster.ray.deployment import Deployment

DEPLOY = Path(__file__).parents[2] / "deploy"
SETTINGS, SERVICE, CLUSTER = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
GROUPS = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
TEMPLATES = {"head": CLUSTER["spec"]["headGroupSpec"]["template"]} | {name: g["template"] for name, g in GROUPS.items()}

KUBERNETES = "1.31"
CLUSTER_KEYS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_is_one_by_the_schema_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(pod(TEMPLATES[name]), KUBERNETES, strict=True)
    mounted = {mount["name"] for c in TEMPLATES[name]["spec"]["containers"] for mount in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in TEMPLATES[name]["spec"]["volumes"]}


@pytest.mark.parametrize("manifest", [SETTINGS, SERVICE], ids=["settings", "service"])
def test_the_others_are_by_their_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schema_would_say_what_is_wrong() -> None:
    container = {"name": "c", "image": "i", "portz": []}
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(pod({"spec": {"containers": [container]}}), KUBERNETES, strict=True)


def test_ray_reads_the_groups_as_they_are_meant() -> None:
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    assert set(CLUSTER["spec"]) == CLUSTER_KEYS
    assert all(set(group) == GROUP_KEYS for group in GROUPS.values())
    kinds = _generate_available_node_types_from_ray_cr_spec(CLUSTER["spec"])
    resources = {name: kind["resources"] for name, kind in kinds.items()}
    assert resources["headgroup"]["CPU"] == 0
    assert (resources["shard"]["CPU"], resources["shard"]["ps_shard"]) == (8, 8)
    assert (resources["trainer"]["CPU"], resources["trainer"]["ps_trainer"]) == (8, 1)
    assert (kinds["shard"]["min_workers"], kinds["shard"]["max_workers"]) == (2, 8)


def test_settings_and_pods_agree(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(SETTINGS["data"]["service.yaml"])
    deployment = Deployment.from_yaml(path)
    assert deployment == Deployment.from_yaml(DEPLOY / "service.yaml"), "the same service as on machines"
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    assert deployment.launch.shards == GROUPS["shard"]["minReplicas"] * 8
    shard = TEMPLATES["shard"]["spec"]["containers"][0]
    limits = {
        name: int(shard["resources"]["limits"][name].removesuffix("Gi")) * 2**30
        for name in ("memory", "ephemeral-storage")
    }
    assert deployment.service.memory.ram_bytes is not None
    assert deployment.service.disk.max_bytes is not None
    assert 8 * deployment.service.memory.ram_bytes * 1.2 < limits["memory"]
    assert 8 * deployment.service.disk.max_bytes < limits["ephemeral-storage"]
    assert str(deployment.service.disk.path).startswith(shard["volumeMounts"][0]["mountPath"])
    head = TEMPLATES["head"]["spec"]["containers"][0]
    (port,) = SERVICE["spec"]["ports"]
    assert {"name": "ps", "containerPort": deployment.launch.port} in head["ports"]
    assert (port["port"], port["targetPort"]) == (deployment.launch.port, deployment.launch.port)
    assert SERVICE["spec"]["selector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"], "ray.io/node-type": "head"}
