"""infra/kubernetes: valid against the clusters of today, and true to the checkout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deploy import POOLS

Manifest = dict[str, Any]
WORKLOADS = ("Deployment", "Job", "StatefulSet", "DaemonSet", "CronJob", "Pod")


@pytest.fixture(scope="module")
def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Pod templates by the name of their workload."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in manifests
        if one["kind"] in WORKLOADS
    }


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def variables(
    container: Manifest, configs: dict[str, Manifest]
) -> Iterator[tuple[str, Manifest | str]]:
    """Name and source of every variable; the value itself where it is written down."""
    for source in container.get("envFrom", []):
        yield from configs[source["configMapRef"]["name"]]["data"].items()
    for variable in container.get("env", []):
        yield variable["name"], variable.get("value", variable.get("valueFrom", {}))


def test_valid_for_supported_clusters(manifests: list[Manifest]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for version in ("1.34", "1.37"):
        for manifest in manifests:
            validate.validate(manifest, version, strict=True)


def test_an_invalid_manifest_would_be_found(manifests: list[Manifest]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    service = dict(named(manifests, "Service")["server"], spek={})
    with pytest.raises(validate.ValidationError):
        validate.validate(service, "1.37", strict=True)


def test_kustomization(infra: Path, kustomization: Manifest, version: str) -> None:
    files = {path.name for path in (infra / "kubernetes").glob("*.yaml")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml"}
    assert kustomization["namespace"] == "fer"
    for image in kustomization["images"]:
        assert image["newTag"] == version


def test_all_in_one_namespace(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "fer", manifest["metadata"]["name"]


def test_images(
    pods: dict[str, Manifest], stages: Any, kustomization: Manifest, version: str
) -> None:
    replaced = {image["name"] for image in kustomization["images"]}
    for pod in pods.values():
        for container in containers(pod):
            name, _, tag = container["image"].partition(":")
            assert tag == version
            assert name in replaced
            assert name.removeprefix("fer-") in stages


def test_restricted(pods: dict[str, Manifest], stages: Any) -> None:
    user = int(stages["worker"].values("USER")[-1].split(":")[0])
    for name, pod in pods.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == user, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
            assert forbidden not in spec
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context


def test_requests_and_limits(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind])


def test_probes(manifests: list[Manifest], stages: Any) -> None:
    for name, deployment in named(manifests, "Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        target = container["image"].partition(":")[0].removeprefix("fer-")
        health = stages[target].values("HEALTHCHECK")[-1]
        for probe in ("startupProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] in ports, name
        get = container["startupProbe"]["httpGet"]
        assert f":{ports[get['port']]}{get['path']}" in health


def test_the_gpu_pool(pods: dict[str, Manifest]) -> None:
    spec = pods["worker-gpu"]["spec"]
    (worker,) = spec["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "--limit=1" in worker["command"], "one job per GPU"
    assert spec["nodeSelector"]
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["nvidia.com/gpu"]
    for name, pod in pods.items():
        if name != "worker-gpu":
            assert "tolerations" not in pod["spec"], f"{name} would take a GPU node's place"
            assert "nvidia.com/gpu" not in str(pod["spec"])


def test_no_secret_is_written_down(
    manifests: list[Manifest], pods: dict[str, Manifest], is_secret: Callable[[str], bool]
) -> None:
    assert not named(manifests, "Secret")
    configs = named(manifests, "ConfigMap")
    found = set()
    for name, pod in pods.items():
        for container in containers(pod):
            for variable, source in variables(container, configs):
                if is_secret(variable):
                    assert isinstance(source, dict), f"{name}: {variable} is written down"
                    assert source["secretKeyRef"]["name"] == "fer"
                    found.add(source["secretKeyRef"]["key"])
    assert found == {
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "FER_NOTIFY_URL",  # optional
    }


def test_the_guide_makes_that_secret(infra: Path) -> None:
    text = (infra / "containers.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"--from-literal=(\w+)=", text))
    assert keys == {
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }


def test_only_the_server_gets_the_databases_password(pods: dict[str, Manifest]) -> None:
    for name, pod in pods.items():
        holds = "PREFECT_SERVER_DATABASE_PASSWORD" in str(pod)
        assert holds == (name == "server")


def test_variables_exist(
    manifests: list[Manifest], pods: dict[str, Manifest], known_variable: Callable[[str], bool]
) -> None:
    configs = named(manifests, "ConfigMap")
    for name, pod in pods.items():
        for container in containers(pod):
            unknown = [v for v, _ in variables(container, configs) if not known_variable(v)]
            assert unknown == [], name


def test_commands_exist(
    pods: dict[str, Manifest], check_command: Callable[[list[str]], str]
) -> None:
    started = {
        name: [check_command(container["command"]) for container in containers(pod)]
        for name, pod in pods.items()
    }
    seeded = ["infra/image/seed.sh", "worker start"]
    assert started == {
        "server": ["server start"],
        "deploy": ["flows.deploy"],
        "worker": seeded,
        "worker-gpu": seeded,
    }


def test_pools(pods: dict[str, Manifest]) -> None:
    found = {
        word.partition("=")[2]
        for name in ("worker", "worker-gpu")
        for word in pods[name]["spec"]["containers"][0]["command"]
        if word.startswith("--pool=")
    }
    assert found == set(POOLS)


def test_same_state_as_compose(
    manifests: list[Manifest], pods: dict[str, Manifest], services: dict[str, Any]
) -> None:
    claims = named(manifests, "PersistentVolumeClaim")
    for name in ("worker", "worker-gpu"):
        pod = pods[name]["spec"]
        (worker,) = pod["containers"]
        here = {mount["mountPath"] for mount in worker["volumeMounts"]} - {"/tmp"}  # noqa: S108
        there = {mount.split(":")[1] for mount in services[name]["volumes"]}
        assert here == there
        assert worker["command"] == services[name]["command"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claim = volumes["project"]["persistentVolumeClaim"]["claimName"]
        assert claims[claim]["spec"]["accessModes"] == ["ReadWriteMany"], "two pods share it"
        seeded = {mount.get("subPath") for mount in worker["volumeMounts"]} - {None}
        assert seeded == {"data", "models", "reports", "dvc"}, "what infra/image/seed.sh makes"


def test_network_policies_reach_what_they_name(
    manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    policies = named(manifests, "NetworkPolicy")
    assert policies["default"]["spec"]["podSelector"] == {}
    assert "ingress" not in policies["default"]["spec"], "nothing in unless it is named"
    reached: dict[str, set[str]] = {}
    for name, policy in policies.items():
        wanted = policy["spec"]["podSelector"].get("matchLabels", {}).items()
        labels = {pod: set(one["metadata"]["labels"].items()) for pod, one in pods.items()}
        reached[name] = {pod for pod, own in labels.items() if set(wanted) <= own}
    assert reached == {
        "default": {"server", "deploy", "worker", "worker-gpu"},
        "server": {"server"},
        "asks-server": {"deploy", "worker", "worker-gpu"},
        "worker": {"worker", "worker-gpu"},
    }


def test_the_service_reaches_the_server(
    manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    service = named(manifests, "Service")["server"]
    labels = pods["server"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (port,) = service["spec"]["ports"]
    url = named(manifests, "ConfigMap")["worker"]["data"]["PREFECT_API_URL"]
    assert url == f"http://{service['metadata']['name']}:{port['port']}/api"
    deployment = named(manifests, "Deployment")["server"]["spec"]
    assert deployment["replicas"] == 1, "a second server without Redis loses events"
    assert deployment["strategy"] == {"type": "Recreate"}


def test_yaml_names_no_anchor(infra: Path) -> None:
    # kustomize writes them out, kubectl's patches do not: a plain file is easier to overlay.
    for path in (infra / "kubernetes").glob("*.yaml"):
        tokens = yaml.scan(path.read_text(encoding="utf-8"))
        assert not [token for token in tokens if isinstance(token, yaml.AnchorToken)], path.name
