"""Which commit: git's where there is git, else FER_COMMIT's."""

from __future__ import annotations

import json
import subprocess
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


def test_what_the_pipeline_writes_is_no_edit(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        options = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    project = tmp_path / "project"
    names = ("code.py", "dvc.lock", "reports/metrics.json", "plots/metrics/loss.tsv", "plots.py")
    lock = {"stages": {"train": {"outs": [{"path": "reports/metrics.json", "md5": "1"},
                                          {"path": "plots/metrics", "md5": "2.dir"}]}}}  # fmt: skip
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(json.dumps(lock) + "\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    for name in ("dvc.lock", "reports/metrics.json", "plots/metrics/loss.tsv"):
        (project / name).write_text(json.dumps(lock) + " \n")
    assert not Lineage.of(project).changed
    for name in ("code.py", "plots.py"):
        (project / name).write_text("edited")
        assert Lineage.of(project).changed
        (project / name).write_text(json.dumps(lock) + "\n")


WHOLE = b"""schema: '2.0'
stages:
  prepare:
    cmd: fer data prepare
    outs:
    - path: data/prepared
      hash: md5
      md5: 0123456789abcdef.dir
"""


def test_a_lock_that_is_cut_anywhere_says_less_and_never_fails(tmp_path: Path) -> None:
    """As somebody sees it who reads while DVC writes, or after a kill in that moment."""
    for length in range(len(WHOLE)):
        (tmp_path / "dvc.lock").write_bytes(WHOLE[:length])
        assert set(Lineage.of(tmp_path).outputs.values()) <= {"?"}, WHOLE[:length]
    (tmp_path / "dvc.lock").write_bytes(WHOLE)
    assert Lineage.of(tmp_path).outputs == {"data/prepared": "0123456789abcdef.dir"}


@pytest.mark.parametrize(
    "text", [b"\xff\n", b"stages\n", b"stages: [\n", b"stages: {a: {outs: [b]}}\n", b"[1]\n"]
)
def test_a_misshapen_lock_says_nothing(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_bytes(text)
    assert Lineage.of(tmp_path).outputs == {}


def test_what_is_no_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("FER_COMMIT", "main")
    with pytest.raises(SettingsError, match="FER_COMMIT"):
        Lineage.of(tmp_path)
