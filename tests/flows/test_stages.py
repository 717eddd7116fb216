"""One DVC stage in a process: its lines, its errors, its end, one writer at a time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fer import lockfile
from fer.errors import WorkflowError
from flows import stages
from flows.stages import StageError, repro
from flows.writer import dvc_root, writer

Make = Callable[[dict[str, dict[str, object]]], Path]


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def breach(message: str, status: int = 1) -> dict[str, object]:
    return {
        "cmd": f"echo looking; echo 'Error: {message}' >&2; echo '  a.png, b.png'; exit {status}"
    }


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_lines_arrive_while_the_stage_runs(project: Make, lines: pytest.LogCaptureFixture) -> None:
    command = "echo one; sleep 1.5; echo two; command -v python > out"
    folder = project({"draw": {"cmd": command, "outs": ["out"]}})
    run = repro("draw", folder)
    times = {record.getMessage(): record.created for record in lines.records}
    assert times["two"] - times["one"] > 1
    assert run.ran == ("draw",)
    # The interpreter of this environment, not the system's.
    assert (folder / "out").read_text().strip() == str(Path(sys.executable).parent / "python")
    assert repro("draw", folder).ran == ()
    assert repro("draw", folder, force=True).ran == ("draw",)


def test_error_says_what_the_stage_said(
    project: Make, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    command = (
        "echo looking; echo 'Error: mean_grey of train is 12, not within 100 to 160' >&2; "
        'echo "  a.png, b.png $AWS_SECRET_ACCESS_KEY"; exit 1'
    )
    with pytest.raises(StageError) as caught:
        repro("validate", project({"validate": {"cmd": command}}))
    error = caught.value
    assert isinstance(error, WorkflowError)
    assert (error.stage, error.status, error.interrupted) == ("validate", 1, False)
    why, what_next = str(error).rsplit("\n", 1)
    assert why == (
        "Stage validate failed, exit status 1: "
        "Error: mean_grey of train is 12, not within 100 to 160\n  a.png, b.png ********"
    )
    assert "dvc repro validate" in what_next
    assert "wJalrXUtnFEMI" not in lines.text


def test_last_line_of_a_traceback_is_the_reason() -> None:
    tail = [
        "Stage 'fetch' didn't change, skipping",
        "Running stage 'train':",
        "> fer train",
        "Traceback (most recent call last):",
        '  File "train.py", line 1, in <module>',
        "tensorflow.errors.ResourceExhaustedError: no memory left",
        "ERROR: failed to reproduce 'train': failed to run: fer train, exited with 1",
    ]
    error = stages._failure("train", Path(), 255, tail)
    assert "exit status 1: tensorflow.errors.ResourceExhaustedError: no memory" in str(error)
    assert "Traceback" not in str(error)


def test_upstream_stages_run_too(project: Make) -> None:
    folder = project(
        {
            "a": {"cmd": "echo 1 > a.txt", "outs": ["a.txt"]},
            "b": {"cmd": "cp a.txt b.txt", "deps": ["a.txt"], "outs": ["b.txt"]},
        }
    )
    assert repro("b", folder).ran == ("a", "b")


def test_error_names_the_stage_that_failed(project: Make) -> None:
    first = breach("no disk left", 2) | {"outs": ["a.txt"]}
    folder = project({"first": first, "second": {"cmd": "true", "deps": ["a.txt"]}})
    with pytest.raises(StageError, match="no disk left") as caught:
        repro("second", folder)
    assert (caught.value.stage, caught.value.status) == ("first", 2)


def test_dvcs_own_error(project: Make) -> None:
    folder = project({"a": {"cmd": "true"}})
    with pytest.raises(StageError, match="'nowhere' not found") as caught:
        repro("nowhere", folder)
    assert caught.value.status is None
    assert not caught.value.interrupted


def test_a_stage_killed_by_a_signal_counts_as_interrupted(project: Make) -> None:
    folder = project({"train": {"cmd": "echo epoch 3; kill -KILL $$"}})
    with pytest.raises(StageError, match="SIGKILL") as caught:
        repro("train", folder)
    assert caught.value.interrupted
    assert "epoch 3" in str(caught.value)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_lock_that_a_kill_left_cut(
    project: Make, lines: pytest.LogCaptureFixture, kept: bool, share: float
) -> None:
    command = "echo made >> made.txt; cp made.txt out.txt"
    folder = project({"fetch": {"cmd": command, "deps": ["in.txt"], "outs": ["out.txt"]}})
    (folder / "in.txt").write_text("read\n")
    repro("fetch", folder)
    lock = folder / "dvc.lock"
    whole = lock.read_bytes()
    if not kept:
        lockfile.kept_copy(folder, folder).unlink()
    lock.write_bytes(whole[: int(len(whole) * share)])

    repro("fetch", folder)
    assert "cut while DVC wrote it" in lines.text
    assert lock.read_bytes() == whole
    assert (folder / "made.txt").read_text() == "made\n"  # nothing was made twice


def test_a_project_below_the_root_stays_below_it(project: Make) -> None:
    root = project({"a": {"cmd": "true"}})
    folder = root / "below"
    folder.mkdir()
    (root / "dvc.yaml").rename(folder / "dvc.yaml")
    for _ in range(2):
        repro("a", folder)
        assert dvc_root(folder) == root.resolve(), "no .dvc of its own"
    kept = lockfile.kept_copy(folder, root)
    assert kept.read_bytes() == (folder / "dvc.lock").read_bytes()
    assert kept != lockfile.kept_copy(root, root)
    (folder / "dvc.lock").write_bytes(b"")
    repro("a", folder)
    assert (folder / "dvc.lock").read_bytes() == kept.read_bytes()


def test_not_a_dvc_project(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"no \.dvc folder"):
        repro("train", tmp_path)


def run_command(folder: Path, command: str) -> list[str]:
    said: list[str] = []
    lock = os.open(os.devnull, os.O_RDONLY)
    try:
        assert stages._run(["sh", "-c", command], folder, lock, said.append) == 0
    finally:
        os.close(lock)
    return said


def test_progress_bars_and_colours_do_not_fill_the_log(tmp_path: Path) -> None:
    command = r"printf '10%%\r50%%\r\033[32m100%%\033[0m\n\n\r'; sleep 0.2; printf 'x\rlast'"
    assert run_command(tmp_path, command) == ["100%", "last"]


def test_a_stage_gets_no_prefect_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_abcdefgh")
    assert run_command(tmp_path, "echo ${PREFECT_API_KEY:-none}") == ["none"]


LONG: dict[str, dict[str, object]] = {
    "train": {"cmd": "sh -c 'echo $$ > pid; exec sleep 600' & sh -c 'trap \"\" TERM; sleep 601'"}
}


def pid_of(folder: Path) -> int:
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    return int((folder / "pid").read_text())


def group_of(leader: int) -> list[int]:
    """Processes in the session that `leader` (a member of it) belongs to."""
    session = os.getsid(leader)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session and alive(int(entry.name)):
                    found.append(int(entry.name))
            except ProcessLookupError:
                pass
    return found


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "GRACE_SECONDS", 1.0)


@pytest.mark.usefixtures("short_grace")
def test_cancelling_ends_every_process_of_the_stage(tmp_path: Path) -> None:
    group: list[int] = []

    def interrupt() -> None:
        group.extend(group_of(pid_of(tmp_path)))
        os.kill(os.getpid(), signal.SIGUSR1)

    def raising(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, raising)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_command(tmp_path, str(LONG["train"]["cmd"]))
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(group) >= 3  # the guard and both commands, one of them deaf to SIGTERM
    assert not [pid for pid in group if alive(pid)]


@pytest.mark.usefixtures("short_grace")
def test_a_stage_that_takes_too_long_is_ended(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({})
    run = stages._run

    def long(_: list[str], *rest: Any) -> int:
        return run(["sh", "-c", str(LONG["train"]["cmd"])], *rest)

    monkeypatch.setattr(stages, "_run", long)
    with pytest.raises(TimeoutError, match="Stage train was ended after 2 s"):
        repro("train", folder, seconds=2)
    assert not alive(pid_of(folder))
    with writer(folder, "afterwards", logging.getLogger(), limit=None, timeout=0):
        pass


def test_the_wait_for_another_run_is_not_in_a_stages_time(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({})
    monkeypatch.setattr(stages, "_run", lambda *_: 0)
    held = threading.Event()

    def hold() -> None:
        with writer(folder, "another", logging.getLogger(), limit=None, timeout=0):
            held.set()
            time.sleep(2)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    started = time.monotonic()
    repro("train", folder, seconds=1)
    assert time.monotonic() - started > 1.5
    other.join()


PARENT = """
    import sys
    from pathlib import Path
    from flows import stages
    stages.GRACE_SECONDS = 1.0
    project, *command = sys.argv[1:]
    if command:
        stages._run(command, Path(project), 0, print)
    else:
        stages.repro("train", Path(project))
"""


def start_parent(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(folder), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_kill_9_of_the_run_leaves_no_orphan(project: Make) -> None:
    folder = project(LONG)
    with start_parent(folder) as parent:
        group = group_of(pid_of(folder))
        parent.kill()
    assert len(group) >= 4
    wait_for(lambda: not [pid for pid in group if alive(pid)], 20)
    # The lock went with them.
    (folder / "dvc.yaml").write_text("stages: {b: {cmd: 'true'}}")
    assert repro("b", folder, wait=1).ran == ("b",)


def test_kill_9_of_the_guard_ends_the_stage(tmp_path: Path) -> None:
    with start_parent(tmp_path, "sh", "-c", str(LONG["train"]["cmd"])) as parent:
        group = group_of(pid_of(tmp_path))
        os.kill(os.getsid(group[0]), signal.SIGKILL)
        parent.wait(20)
    wait_for(lambda: not [pid for pid in group if alive(pid)], 5)


def test_second_writer_waits_and_says_so(
    project: Make, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.writer._POLL_SECONDS", 0.05)
    folder = project(
        {
            "a": {"cmd": "echo a begins >> ../log; sleep 2; echo a ends >> ../log"},
            "b": {"cmd": "echo b begins >> ../log; echo b ends >> ../log"},
        }
    )
    log = folder.parent / "log"
    first = threading.Thread(target=repro, args=("a", folder))
    first.start()
    wait_for(log.exists)
    with pytest.raises(WorkflowError, match=r"writing this project for 0 s .*stage a, process"):
        repro("b", folder, wait=0.1)
    repro("b", folder)
    first.join()
    assert log.read_text().split("\n")[:4] == ["a begins", "a ends", "b begins", "b ends"]
    assert any("Waiting: another run writes" in record.getMessage() for record in lines.records)
