"""The files of deploy/ against their schemas, and the dashboard against what a run exports."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmdata.cluster.metrics import exported
from mmdata.config import EndToEndConfig, ExtractConfig, load

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PINNED = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]


class Strict(BaseModel):
    """A part of the RayJob resource of KubeRay 1.x: the fields there are, and which must be there."""

    model_config = ConfigDict(extra="forbid")


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9-]{1,47}$")  # KubeRay adds a suffix to it
    namespace: str = "default"


class Container(Strict):
    name: str
    image: str
    resources: dict[Literal["requests", "limits"], dict[str, str]]
    ports: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, Any]] = []

    @model_validator(mode="after")
    def _ray_counts_limits(self) -> "Container":
        assert self.resources["requests"] == self.resources["limits"], "Ray places by limits, Kubernetes by requests"
        return self


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    volumes: list[dict[str, Any]] = []
    nodeSelector: dict[str, str] = {}
    tolerations: list[dict[str, str]] = []
    terminationGracePeriodSeconds: int = 30


class Pod(Strict):
    spec: PodSpec


class Group(Strict):
    template: Pod
    rayStartParams: dict[str, str]


class WorkerGroup(Group):
    groupName: str
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(gt=0)
    replicas: int = 0


class AutoscalerOptions(Strict):
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]
    idleTimeoutSeconds: int


class RayCluster(Strict):
    rayVersion: str
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: Group
    workerGroupSpecs: list[WorkerGroup] = Field(min_length=1)


class RayJobSpec(Strict):
    entrypoint: str
    backoffLimit: int = Field(ge=0)
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    submitterConfig: dict[Literal["backoffLimit"], int]
    rayClusterSpec: RayCluster


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


def rayjob() -> tuple[dict[str, Any], RayJob]:
    config_map, job = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    return config_map, RayJob.model_validate(job)


def test_the_rayjob_has_the_fields_of_its_resource() -> None:
    _, job = rayjob()
    cluster = job.spec.rayClusterSpec
    assert cluster.rayVersion == PINNED
    assert cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"
    (workers,) = cluster.workerGroupSpecs
    assert workers.template.spec.containers[0].resources["limits"]["nvidia.com/gpu"] == "1"


def test_the_rayjob_runs_its_own_config_on_workers_that_its_nodes_can_hold(tmp_path: Path) -> None:
    config_map, job = rayjob()
    program, module, name, path, *sets = shlex.split(job.spec.entrypoint)[:4] + shlex.split(job.spec.entrypoint)[4:]
    assert (program, module, name) == ("python", "-m", "pipelines.end_to_end")
    head = job.spec.rayClusterSpec.headGroupSpec.template.spec
    (mount,), (volume,) = head.containers[0].volumeMounts, head.volumes
    assert path == f"{mount['mountPath']}/job.yaml"
    assert (volume["name"], volume["configMap"]["name"]) == (mount["name"], config_map["metadata"]["name"])
    (tmp_path / "job.yaml").write_text(config_map["data"]["job.yaml"])
    config = load(EndToEndConfig, str(tmp_path / "job.yaml"), sets[1::2])
    assert (config.shard.ray_address, config.extract.ray_address) == ("auto", "auto")
    (workers,) = job.spec.rayClusterSpec.workerGroupSpecs
    node = workers.template.spec.containers[0].resources["limits"]
    for stage in (config.shard, config.extract, *config.index):
        assert stage.workers == workers.maxReplicas
        assert (stage.cpus_per_worker or 1) <= float(node["cpu"])
        assert (stage.gpus_per_worker or 0) <= float(node["nvidia.com/gpu"])


def test_the_cluster_file_has_the_schema_of_ray() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    workers = cluster["available_node_types"]["spot_gpu"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["max_workers"] <= cluster["max_workers"]
    assert cluster["head_node_type"] in cluster["available_node_types"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"max_worker": 1}, schema)


def test_the_command_in_the_cluster_file_is_one_that_its_job_understands() -> None:
    told = "\n".join(line[1:].strip() for line in (DEPLOY / "cluster.yaml").read_text().splitlines() if line[:1] == "#")
    (command,) = re.findall(r"-- \\\n(.*?)\nray down", told, re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "pipelines.extract"]
    config = load(ExtractConfig, None, words[4::2])
    assert (config.workers, config.gpus_per_worker, config.ray_address) == (16, 1, "auto")


def test_the_image_has_the_ray_of_the_constraints() -> None:
    assert f"FROM rayproject/ray:{PINNED}-" in (DEPLOY / "Dockerfile").read_text()


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bray_\w+", target["expr"])
    }
    assert shown == set(exported())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
