"""The command line as a whole: errors, exit statuses, what goes where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def fer(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fer", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_error_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    done = fer("data", "fetch", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fer: params.yaml does not exist.")
    assert "Traceback" not in done.stderr


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    done = fer("data", "fetsh", cwd=tmp_path)
    assert done.returncode == 2
    assert "fetsh" in done.stderr


def test_a_misspelt_parameter_is_named_with_the_nearest(tmp_path: Path, checkout: Path) -> None:
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("batch_size:", "batchsize:", 1))
    done = fer("data", "fetch", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown key 'train.batchsize'; did you mean 'train.batch_size'?" in done.stderr


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    done = fer("models", "list", "--registry", str(tmp_path / "registry"), "--json", cwd=tmp_path)
    if done.returncode == 0:
        json.loads(done.stdout)
    else:  # a registry that was never written to may be an error, but then stdout stays empty
        assert done.stdout == ""
        assert done.stderr.startswith("fer: ")


@pytest.mark.parametrize("command", ["demo", "data", "train", "models", "predict", "batch"])
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    done = fer(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: " in done.stdout
