"""One DVC stage as one Prefect task.

The stage runs in a process of its own, its output goes to the run's log line by line, and it
ends with the run: cancelled, timed out, or killed outright.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.utilities.timeout import timeout

from fer import lockfile
from fer.errors import WorkflowError
from flows.redaction import redacted, redactor
from flows.writer import GPU_LIMIT, LIMIT, Log, dvc_root, slot, writer

GUARD = Path(__file__).with_name("guard.py")
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL
HOUR = 3600.0  # seconds
WAIT_SECONDS = 12 * HOUR  # for another writer; longer than a training takes

_LONGEST_LINE = 4000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# DVC's advice to somebody at a prompt, after each stage.
_ADVICE = re.compile(
    r"To track the changes with git, run:|\s+git add |To enable auto staging, run:"
    r"|\s+dvc config core\.autostage|Use `dvc push`"
)
_FAILED = re.compile(r"failed to reproduce '([^']+)'")
_EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)\s*$")
# `fer: ...` is how this project's commands say it; the rest is Python's and other programs' way.
_ERROR = re.compile(r"^fer: |^\W*(\w+\.)*(\w*(Error|Exception|Exit)|error|ERROR|fatal)\b\s*:")


class StageError(WorkflowError):
    """A DVC stage that failed. The message holds the stage's own last words.

    Attributes:
        stage: the stage that failed, which may be one that the asked-for stage depends on.
        status: exit status of the stage's command; None where DVC itself failed.
    """

    stage: str = ""
    status: int | None = None

    @classmethod
    def of(cls, stage: str, status: int | None, text: str) -> StageError:
        """The error for `stage`; `text` says why it failed."""
        error = cls(text)
        error.stage, error.status = stage, status
        return error

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the command: killed from outside, or out of memory."""
        return _signal(self.status) is not None


@dataclass(frozen=True)
class StageRun:
    """What `repro` did."""

    stage: str
    ran: tuple[str, ...]  # the stages that ran, in order; empty where all was up to date
    seconds: float

    def __str__(self) -> str:
        what = f"ran {', '.join(self.ran)}" if self.ran else "up to date, nothing ran"
        return f"Stage {self.stage}: {what} ({self.seconds:.0f} s)."


def repro(
    stage: str,
    project: Path,
    *,
    alone: bool = False,
    force: bool = False,
    log: Log | None = None,
    limit: str | None = None,
    wait: float = WAIT_SECONDS,
    seconds: float | None = None,
) -> StageRun:
    """Bring one DVC stage up to date, with the stages that it depends on.

    Args:
        stage: its name in dvc.yaml.
        project: folder of dvc.yaml.
        alone: leave the stages that it depends on as they are.
        force: run this one stage, alone, even if nothing that it depends on has changed.
        log: where the lines go; this module's logger where None.
        limit: a Prefect concurrency limit to hold meanwhile (see `flows.writer`).
        wait: seconds to wait while another run writes the project.
        seconds: the stage is ended after so long; the wait does not count.

    Raises:
        StageError: the stage, or one before it, failed.
        TimeoutError: it was ended after `seconds`.
        WorkflowError: no DVC project here, or another run kept it for too long.
    """
    log = log or logging.getLogger(__name__)
    command = [sys.executable, "-m", "dvc", "repro"]
    command += ["--single-item"] * (alone or force) + ["--force"] * force + [stage]
    with writer(project, f"stage {stage}", log, limit=limit, timeout=wait) as lock:
        if mended := lockfile.mend(project, dvc_root(project)):
            log.warning("%s", mended)
        started = time.monotonic()
        tail: deque[str] = deque(maxlen=400)
        ran: list[str] = []
        clean = redactor()

        def line(text: str) -> None:
            if _ADVICE.match(text):
                return
            text = clean(text)[:_LONGEST_LINE]
            tail.append(text)
            if match := re.match(r"Running stage '([^']+)'", text):
                ran.append(match[1])
            level = logging.ERROR if text.startswith("ERROR:") else logging.INFO
            log.log(level, "%s", text)

        try:
            with timeout(seconds):
                status = _run(command, project, lock, line)
        except TimeoutError:
            raise TimeoutError(f"Stage {stage} was ended after {seconds:.0f} s.") from None
        if status != 0:
            raise _failure(stage, project, status, list(tail))
        lockfile.mend(project, dvc_root(project))  # keeps what this run has recorded
        return StageRun(stage, tuple(ran), time.monotonic() - started)


def stage_environment() -> dict[str, str]:
    """The environment of a stage: this interpreter's commands first, no telemetry."""
    # A stage talks to no Prefect server, so it gets neither its address nor its key.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    # Not resolved: in a virtual environment the interpreter is a link, and `fer` stands beside it.
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    )
    environment |= {
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",  # messages are not folded in the middle of a path
        "SHELL": "/bin/sh",  # DVC runs commands in $SHELL: the same everywhere
    }
    return environment


def _run(command: list[str], project: Path, lock: int, line: Callable[[str], None]) -> int:
    """Run `command` under the guard and feed its lines; exit status as the guard gives it."""
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), str(GRACE_SECONDS), *command],
        cwd=project,
        env=stage_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(lock,),
    )
    assert guard.stdin is not None  # noqa: S101
    assert guard.stdout is not None  # noqa: S101
    try:
        output = guard.stdout.fileno()
        rest = b""
        while True:
            # In the main thread: Prefect's cancellation and timeouts are signals that raise here.
            if select.select([output], [], [], 1.0)[0]:
                chunk = os.read(output, 1 << 16)
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                for raw in lines:
                    _feed(raw, line)
                rest = rest[rest.rfind(b"\r", 0, -1) + 1 :]  # of a progress bar, its latest state
            elif guard.poll() is not None:
                break
        _feed(rest, line)
        return guard.wait()
    finally:
        guard.stdin.close()  # the lifeline: see flows/guard.py
        try:
            guard.wait(GRACE_SECONDS + 5)
        finally:
            # Whatever is left of the group, in particular where the guard itself was killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()
            guard.stdout.close()


def _feed(raw: bytes, line: Callable[[str], None]) -> None:
    text = _ANSI.sub("", raw.decode("utf-8", "replace")).rstrip()
    text = text.rpartition("\r")[2].rstrip()
    if text.strip():
        line(text)


def _failure(stage: str, project: Path, status: int, tail: list[str]) -> StageError:
    """The error that says why, from the last lines of `dvc repro`."""
    verdicts = [text for text in tail if text.startswith("ERROR:")]
    failed, command_status = stage, None
    for text in verdicts:
        if match := _FAILED.search(text):
            failed = match[1]
        if match := _EXITED.search(text):
            command_status = int(match[1])
    if command_status is None and _signal(status) is not None:
        command_status = status  # DVC itself was killed, and its stage with it
    own = tail
    for number, text in enumerate(tail):
        if text.startswith("Running stage '"):
            own = tail[number + 1 :]
    own = [text for text in own if not text.startswith(("ERROR: failed to ", "> "))]
    if command_status is None and verdicts:
        reason = verdicts  # DVC refused: its own words say why
    else:
        starts = [number for number, text in enumerate(own) if _ERROR.match(text)]
        reason = own[starts[-1] :][:40] if starts else own[-5:]
    if name := _signal(command_status):
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        reason = [f"ended by {name}{hint}", *reason]
    how = "" if command_status is None else f", exit status {command_status}"
    text = "\n".join(reason) or "it said nothing"
    return StageError.of(
        failed,
        command_status,
        f"Stage {failed} failed{how}: {text}\n"
        f"To repeat it by hand: cd {project.resolve()} && dvc repro {failed}",
    )


def _signal(status: int | None) -> str | None:
    """Name of the signal behind an exit status: -15 from Python, 143 from a shell."""
    if status is None:
        return None
    try:
        return signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:  # 0, 1, 2, DVC's own 255 ...
        return None


def transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry condition of `fetch`: a network that failed (1), not a wrong source or digest (2)."""
    error = _error(state)
    return isinstance(error, StageError) and (error.status == 1 or error.interrupted)


def interrupted(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry condition of the other stages: ended by a signal, never by what it found.

    A breach of the data gate stays one however often it is looked at.
    """
    error = _error(state)
    return isinstance(error, StageError) and error.interrupted


def _error(state: State[Any]) -> object:
    return state.result(raise_on_failure=False)


@task
@redacted
def dvc_stage(
    stage: str,
    project: Path,
    seconds: float,
    alone: bool = False,
    force: bool = False,
    gpu: bool = False,
) -> StageRun:
    """Bring a DVC stage up to date; its output is this task's log.

    Args:
        seconds: the stage is ended after so long. Not the task's own timeout: that would count
            the hours in which it waits for another run.
        gpu: wait for a GPU of the server's workers first (the concurrency limit `gpu`).
    """
    log = get_run_logger()
    with slot(GPU_LIMIT, log, WAIT_SECONDS) if gpu else contextlib.nullcontext():
        run = repro(stage, project, alone=alone, force=force, log=log, limit=LIMIT, seconds=seconds)
    log.info(str(run))
    return run
