"""infra/pools: job templates that Prefect, Docker and Kubernetes take, true to the worker's own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values

Document = dict[str, Any]
KINDS = ("docker", "kubernetes")
SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.fixture(scope="module")
def templates(infra: Path) -> dict[str, Document]:
    return {
        kind: json.loads((infra / "pools" / f"{kind}-gpu.json").read_text(encoding="utf-8"))
        for kind in KINDS
    }


def rendered(template: Document, **values: Any) -> Document:
    """The job that a worker makes of a template and a deployment's job variables."""
    variables = {
        name: one["default"]
        for name, one in template["variables"]["properties"].items()
        if "default" in one
    }
    found: Document = apply_values(template["job_configuration"], variables | values)
    return found


def job(template: Document, **values: Any) -> Document:
    """The Job of a Kubernetes pool, without what only Prefect wants of it."""
    manifest: Document = rendered(template, command=["python"], name="run", labels={}, **values)
    manifest = manifest["job_manifest"]
    spec = manifest["spec"]["template"]["spec"]
    # Fields of a job that Prefect wants in the pod, where Kubernetes ignores them.
    assert (spec.pop("parallelism"), spec.pop("completions")) == (1, 1)
    return manifest


@pytest.fixture(scope="module")
def worker(manifests: list[Document]) -> Document:
    """The pod of the process worker with a GPU."""
    (found,) = [
        one for one in manifests if one["metadata"]["name"] == "worker-gpu" and "spec" in one
    ]
    pod: Document = found["spec"]["template"]
    return pod


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_takes_it(templates: dict[str, Document], kind: str) -> None:
    """Every variable that is used is declared, and the other way round."""
    template = templates[kind]
    WorkPoolCreate(name="gpu", type=kind, base_job_template=template)
    text = json.dumps(template["job_configuration"])
    for name, one in template["variables"]["properties"].items():
        assert f"{{{{ {name} }}}}" in text, name
        assert one["description"]
    unknown = json.loads(json.dumps(template).replace("{{ image }}", "{{ picture }}"))
    with pytest.raises(ValueError, match="picture"):
        WorkPoolCreate(name="gpu", type=kind, base_job_template=unknown)


def test_docker_gets_a_gpu_and_no_more_rights_than_compose_gives(
    templates: dict[str, Document], services: dict[str, Any]
) -> None:
    pytest.importorskip("docker")
    from docker.models.containers import _create_container_args

    found, service = rendered(templates["docker"]), services["worker-gpu"]
    more = found["container_create_kwargs"]
    made = _create_container_args(
        {"image": found["image"], "volumes": found["volumes"], "mem_limit": found["mem_limit"]}
        | {"privileged": found["privileged"], "environment": found["env"], "version": "1.44"}
        | more
    )
    host = made["host_config"]
    (request,) = host["DeviceRequests"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (request["Driver"], request["Count"]) == (device["driver"], device["count"])
    assert request["Capabilities"] == [device["capabilities"]]
    assert made["image"] == service["image"]
    assert made["user"] == service["user"]
    assert host["CapDrop"] == service["cap_drop"]
    assert host["SecurityOpt"] == service["security_opt"]
    assert (host["ReadonlyRootfs"], host["Init"]) == (service["read_only"], service["init"])
    assert host["Binds"] == [f"fer_{one}" for one in service["volumes"]]
    assert host["Memory"] == 12 << 30
    assert not host.get("Privileged")
    # One card, by name.
    chosen = [{"driver": "nvidia", "device_ids": ["1"], "capabilities": [["gpu"]]}]
    more = rendered(templates["docker"], device_requests=chosen)["container_create_kwargs"]
    host = _create_container_args({"image": "any", "version": "1.44"} | more)["host_config"]
    assert host["DeviceRequests"][0]["DeviceIDs"] == ["1"]


def test_kubernetes_gets_the_pod_of_the_worker(
    templates: dict[str, Document], worker: Document
) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    manifest = job(templates["kubernetes"])
    for version in ("1.34", "1.37"):
        validate.validate(manifest, version, strict=True)
    pod = manifest["spec"]["template"]
    labels = worker["metadata"]["labels"]
    assert pod["metadata"]["labels"].items() <= labels.items(), "network.yaml goes by them"
    mine, theirs = pod["spec"], worker["spec"]
    for name in set(theirs) - {"containers", "initContainers"}:
        assert mine[name] == theirs[name], name
    (own,), (other,) = mine["containers"], theirs["containers"]
    for name in ("resources", "securityContext", "volumeMounts", "env", "envFrom"):
        assert own[name] == other[name], name
    (own,), (other,) = mine["initContainers"], theirs["initContainers"]
    assert own | {"image": ""} == other | {"image": ""}


def test_a_deployment_chooses_gpus_and_nodes(templates: dict[str, Document]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    manifest = job(templates["kubernetes"], gpus="2", node_selector={"gpu": "h200"})
    validate.validate(manifest, "1.37", strict=True)
    spec = manifest["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["nodeSelector"] == {"gpu": "h200"}


def test_the_images_are_those_of_this_version(
    templates: dict[str, Document], version: str, kustomization: Document
) -> None:
    assert rendered(templates["docker"])["image"] == f"fer-worker-gpu:{version}"
    (image,) = [one for one in kustomization["images"] if one["name"] == "fer-worker-gpu"]
    pod = job(templates["kubernetes"])["spec"]["template"]["spec"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["image"] == f"{image['newName']}:{image['newTag']}"


def test_no_secret_is_written_down(
    templates: dict[str, Document], is_secret: Callable[[str], bool]
) -> None:
    """In Prefect's encrypted blocks, or in the cluster's secret."""
    env = rendered(templates["docker"])["env"]
    found = {name for name in env if is_secret(name)}
    assert found == SECRETS
    assert all(env[name].startswith("{{ prefect.blocks.secret.") for name in found)
    (container,) = job(templates["kubernetes"])["spec"]["template"]["spec"]["containers"]
    assert {one["name"] for one in container["env"] if is_secret(one["name"])} == SECRETS | {
        "PREFECT_API_AUTH_STRING"
    }
    assert all("secretKeyRef" in one["valueFrom"] for one in container["env"])


def test_variables_exist(
    templates: dict[str, Document], known_variable: Callable[[str], bool]
) -> None:
    env = rendered(templates["docker"])["env"]
    assert [name for name in env if not known_variable(name)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_worker_of_the_pool_takes_it(templates: dict[str, Document], kind: str) -> None:
    """Where its package is installed, which the lock does not have."""
    module = pytest.importorskip(f"prefect_{kind}.worker")
    cls = getattr(module, f"{kind.capitalize()}Worker")
    base, template = cls.get_default_base_job_template(), templates[kind]
    assert set(template["job_configuration"]) <= set(base["job_configuration"])
    # No server is asked for its blocks here.
    plain = json.loads(re.sub(r"{{ prefect\.blocks\.secret\.(\S+) }}", r"\1", json.dumps(template)))
    values = {"env": {"FER_DATA": "a.zip"}}
    made = asyncio.run(
        cls.job_configuration.from_template_and_values(plain, values, client=SimpleNamespace())
    )
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="quick-fox"))
    if kind == "docker":
        assert made.env["FER_DATA"] == "a.zip"
        assert made.env["AWS_SECRET_ACCESS_KEY"] == "fer-secret-key"
        assert made.container_create_kwargs["device_requests"][0]["count"] == 1
        assert made.command
        return
    manifest = made.job_manifest
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    env = {one["name"]: one for one in container["env"]}
    assert env["FER_DATA"]["value"] == "a.zip"
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "fer"
    assert container["args"]
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["fer/asks-server"] == "true"
