"""Processes that outlive the command that starts them, and are found again by the next one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from fer.errors import WorkflowError
from fer.files import write_json
from flows.local.ports import is_free

_SAME_START: Final = 1.0  # s; a process of this number that started at another time is another one
_LAST_WORDS: Final = 1500
_PORT_SECONDS: Final = 5.0  # a process that was killed may keep its ports for a moment


@dataclass(frozen=True)
class Process:
    """A process that was started: its number, and when, which together are no other one's."""

    name: str
    pid: int
    started: float
    gentle: int = signal.SIGTERM

    def alive(self) -> bool:
        """Whether it still runs."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < _SAME_START
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class Processes:
    """Those of one folder: `state.json` names them, `logs/<name>.log` has what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / "state.json"
        self._children: list[subprocess.Popen[bytes]] = []

    def known(self) -> list[Process]:
        """Those that were started and not stopped, in that order, dead ones too.

        Raises:
            WorkflowError: the list cannot be read.
        """
        try:
            return [Process(**one) for one in json.loads(self._state.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise WorkflowError(
                f"{self._state} cannot be read ({error}). End the processes by hand, and remove it."
            ) from None

    def alive(self, name: str) -> bool:
        """Whether the process of this name runs."""
        return any(one.name == name and one.alive() for one in self.known())

    def started(self, name: str) -> float:
        """When the process of this name started, in seconds since 1970; a second may be missing."""
        return next(one.started for one in self.known() if one.name == name)

    def memory(self, name: str) -> float:
        """Megabytes that the process of this name and those it started hold, shared ones once."""
        total = 0
        for one in self.known():
            if one.name != name or not one.alive():
                continue
            leader = psutil.Process(one.pid)
            for process in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found = process.memory_full_info()
                    total += getattr(found, "pss", found.rss)
        return total / 1e6

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        cwd: Path | None = None,
        gentle: int = signal.SIGTERM,
        ports: Collection[int] = (),
    ) -> None:
        """Start a process, unless it runs.

        Args:
            name: of the process and its log.
            command: program and arguments.
            environment: all of it.
            cwd: its working folder; this object's own where None.
            gentle: the signal that asks it to end.
            ports: that it will listen on. Somebody else who did would be taken for it.

        Raises:
            WorkflowError: the program cannot be started, or a port is taken.
        """
        if self.alive(name):
            return
        _need_free(name, ports)
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            try:
                child = subprocess.Popen(
                    [str(part) for part in command],
                    cwd=cwd or self.folder,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise WorkflowError(f"{name} cannot be started: {error}.") from None
        self._children.append(child)
        started = Process(name, child.pid, psutil.Process(child.pid).create_time(), gentle)
        self._write([*(one for one in self.known() if one.name != name), started])

    def wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until a process is ready.

        Raises:
            WorkflowError: it ended, or is not ready in time; with its last words.
        """
        end = time.monotonic() + seconds
        while not ready():
            self.need(name)
            if time.monotonic() > end:
                raise WorkflowError(
                    f"{name} is not ready after {seconds:.0f} s. It said:\n{self.last_words(name)}"
                )
            time.sleep(0.2)
        self.need(name)

    def need(self, name: str) -> None:
        """Do nothing while a process runs.

        Raises:
            WorkflowError: it ended; with its last words.
        """
        if not self.alive(name):
            raise WorkflowError(f"{name} ended. It said:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The end of a process's log."""
        try:
            text = (self.folder / "logs" / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return "nothing"
        return text[-_LAST_WORDS:].strip() or "nothing"

    def stop(self, said: Callable[[str], None], patience: float = 40) -> None:
        """End all of them, the latest first: gently, then by force with all they started."""
        for process in reversed(self.known()):
            if process.alive():
                said(process.name)
                os.kill(process.pid, process.gentle)
                end = time.monotonic() + patience
                while process.alive() and time.monotonic() < end:
                    self._reap()
                    time.sleep(0.05)
            _end_group(process)
            self._write([one for one in self.known() if one.name != process.name])
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)

    def _reap(self) -> None:
        """Take note of this very process's children that have ended; others' parents do."""
        self._children = [child for child in self._children if child.poll() is None]

    def _write(self, processes: list[Process]) -> None:
        if processes:
            write_json(self._state, [asdict(one) for one in processes])
        else:
            self._state.unlink(missing_ok=True)


def _need_free(name: str, ports: Collection[int]) -> None:
    end = time.monotonic() + _PORT_SECONDS
    while taken := [port for port in ports if not is_free(port)]:
        if time.monotonic() > end:
            raise WorkflowError(
                f"{name} cannot be started: something else listens on port {taken[0]}. Find it "
                f"with `ss -ltnp sport = :{taken[0]}`, and stop it."
            )
        time.sleep(0.1)


def _end_group(process: Process) -> None:
    """Kill what is left of a process's session, which it led.

    No new process gets a number that a group still has; but one whose group is gone may be
    another's by now.
    """
    if psutil.pid_exists(process.pid) and not process.alive() and not _zombie(process.pid):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return False
