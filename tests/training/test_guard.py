"""A stage ends with the dvc process that started it, also while nothing looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer.training.guard import _is_dvc

# Stands for a stage in a phase without callbacks: it only waits, as graph building does.
_STAGE = """
import sys, time
from pathlib import Path
from fer.training.guard import end_with_workflow, workflow_alive
end_with_workflow(every=0.1)
assert workflow_alive()
Path(sys.argv[1]).write_text(str(__import__("os").getpid()))
time.sleep(60)
"""

# Stands for dvc: what the guard looks for is its command line among the ancestors.
_DVC = """
import subprocess, sys
sys.exit(subprocess.call(sys.argv[2:]))
"""


def start(folder: Path, *command: str, **more: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the stage below a process with this command line; both, once the stage waits."""
    (folder / "dvc").write_text(_DVC)
    (folder / "stage.py").write_text(_STAGE)
    ready = folder / "ready"
    checkout = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, *command, sys.executable, str(folder / "stage.py"), str(ready)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout), **more},
    )
    deadline = time.monotonic() + 120
    while not (ready.exists() and ready.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, int(ready.read_text())


def ends(pid: int, within: float) -> bool:
    import psutil

    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_the_stage_ends_when_dvc_is_killed(tmp_path: Path) -> None:
    dvc, stage = start(tmp_path, "dvc", "repro", DVC_ROOT=str(tmp_path))
    # Not waited for: a dvc that nobody has waited for yet is as gone as any.
    os.kill(dvc.pid, signal.SIGKILL)
    try:
        assert ends(stage, within=20)
    finally:
        dvc.wait()


@pytest.mark.parametrize(
    ("command", "root"),
    [(("dvc", "status"), "x"), (("dvc", "repro"), None)],
    ids=["another command of dvc", "outside of a stage"],
)
def test_elsewhere_the_stage_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], root: str | None
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    more = {"DVC_ROOT": root} if root else {}
    parent, stage = start(tmp_path, *command, **more)
    parent.kill()
    parent.wait()
    try:
        assert not ends(stage, within=2)
    finally:
        os.kill(stage, signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "dvc"),
    [
        (["/venv/bin/python", "/venv/bin/dvc", "repro", "train"], True),
        (["/venv/bin/dvc", "repro"], True),
        (["python", "-m", "dvc", "repro", "--single-item", "train"], True),
        (["python", "-m", "dvc", "exp", "run"], True),
        (["/venv/bin/python", "/venv/bin/dvc", "push"], False),
        (["bash", "-c", "cd dvc && make repro"], False),
        (["/srv/dvc/python", "/srv/dvc/bin/pytest", "repro"], False),
        (["sh", "-c", "fer train"], False),
        ([], False),
    ],
)
def test_what_counts_as_dvc(command: list[str], dvc: bool) -> None:
    assert _is_dvc(command) == dvc
