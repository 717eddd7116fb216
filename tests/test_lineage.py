"""Which commit: git's where there is git, else FER_COMMIT's."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer.errors import SettingsError
from fer.lineage import Lineage

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("named", "version"),
    [
        ("", "no-commit"),
        (COMMIT, COMMIT[:12]),
        (COMMIT + "-dirty", COMMIT[:12] + "-dirty"),
        (COMMIT[:7], COMMIT[:7]),
    ],
)
def test_without_git_the_environment_names_the_commit(
    named: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("FER_COMMIT", named)
    assert Lineage.of(tmp_path).version == version


def test_git_knows_better(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (checkout / ".git").exists():
        pytest.skip("this checkout is without git")
    monkeypatch.setenv("FER_COMMIT", COMMIT)
    found = Lineage.of(checkout).commit
    assert found is not None
    assert found != COMMIT


def test_what_is_no_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("FER_COMMIT", "main")
    with pytest.raises(SettingsError, match="FER_COMMIT"):
        Lineage.of(tmp_path)
