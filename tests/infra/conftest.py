"""What infra/ says, read once: the Dockerfile's stages, compose.yaml, the manifests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.redaction import _SECRET_NAME

Manifest = dict[str, Any]


@dataclass
class Stage:
    """One FROM of a Dockerfile, with the stages that it builds on."""

    name: str
    parent: str
    instructions: list[tuple[str, str]]
    base: Stage | None = None
    copied: list[str] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        """Arguments of every such instruction, the parents' first."""
        before = self.base.values(instruction) if self.base else []
        return before + [text for name, text in self.instructions if name == instruction]

    def environment(self) -> dict[str, str]:
        """Of every ENV."""
        pairs = [word for text in self.values("ENV") for word in shlex.split(text)]
        return dict(pair.split("=", 1) for pair in pairs)


def read_stages(text: str) -> dict[str, Stage]:
    """Stages by name, in their order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = rest.partition(" AS ")
            stage = Stage(name, parent, [], found.get(parent))
            found[name] = stage
        else:
            assert stage is not None, line
            stage.instructions.append((instruction, rest.strip()))
    return found


@pytest.fixture(scope="session")
def infra(checkout: Path) -> Path:
    return checkout / "infra"


@pytest.fixture(scope="session")
def stages(infra: Path) -> dict[str, Stage]:
    return read_stages((infra / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def compose_text(infra: Path) -> str:
    return (infra / "compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def services(compose_text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose_text)["services"]
    return found


@pytest.fixture(scope="session")
def kustomization(infra: Path) -> Manifest:
    text = (infra / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8")
    found: Manifest = yaml.safe_load(text)
    return found


@pytest.fixture(scope="session")
def manifests(infra: Path) -> list[Manifest]:
    """Every document of every file but the kustomization."""
    paths = sorted((infra / "kubernetes").glob("*.yaml"))
    return [
        document
        for path in paths
        if path.name != "kustomization.yaml"
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


@pytest.fixture(scope="session")
def known_variable() -> Callable[[str], bool]:
    """Whether a program of the images reads this variable; of other people's, we cannot say."""
    import dvc.env
    from prefect.settings import Settings as PrefectSettings
    from prefect.settings.legacy import _get_valid_setting_names

    from fer.settings import Settings

    own = {f"FER_{name.upper()}" for name in Settings.model_fields}
    theirs = _get_valid_setting_names(PrefectSettings)

    def known(name: str) -> bool:
        if name.startswith("FER_"):
            return name in own
        if name.startswith("PREFECT_"):
            return name in theirs
        if name.startswith("DVC_"):
            return hasattr(dvc.env, name)
        return True

    return known


@pytest.fixture(scope="session")
def is_secret() -> Callable[[str], bool]:
    """Whether a variable of this name holds a secret."""
    return lambda name: bool(_SECRET_NAME.search(name)) or name == "AWS_ACCESS_KEY_ID"


@pytest.fixture(scope="session")
def check_command(checkout: Path) -> Callable[[list[str]], str]:
    """Parse a command as the program itself would, without running it; what it starts."""

    def check(command: list[str]) -> str:
        program, *rest = command
        if program == "python" and rest[0] == "-m":
            assert (checkout / (rest[1].replace(".", "/") + ".py")).is_file(), command
            return rest[1]
        if program in ("python", "sh"):
            assert (checkout / rest[0]).is_file(), command
            return rest[0]
        assert program == "prefect", command
        from prefect.cli._app import _app

        _app.parse_args(rest, print_error=False, exit_on_error=False)
        return " ".join(rest[:2])

    return check


@pytest.fixture(scope="session")
def version(checkout: Path) -> str:
    import tomllib

    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])
