"""What `make up` starts, asked and killed from outside: for programs that see what is left."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from flows.automations import MOST_TRIES
from flows.local.up import Stack

ENDED: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Served:
    """Services in a folder.

    Args:
        folder: as of `make up`.
        patience: seconds that a run may take.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder.resolve()
        self.stack = Stack(self.folder)
        self.patience = patience

    def schedule(self, deployment: str, schedule: str, *, active: bool) -> None:
        """Let a schedule run, or not."""
        path = f"/deployments/{deployment}/schedules/{schedule}"
        self.stack.ask(path, {"active": active}, "PATCH")

    def must(self, path: str, body: object = None) -> Any:
        """An answer of the API, however long it takes a server that is just starting."""
        return self.wait(lambda: self.stack.ask(path, body), 120, f"{path} does not answer")

    def wait(self, condition: Callable[[], Any], seconds: float, why: str) -> Any:
        """The first answer that is not None or False."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found is not None and found is not False:
                return found
            if time.monotonic() > end:
                raise SystemExit(f"After {seconds:.0f} s: {why}. Logs: {self.folder / 'logs'}")
            time.sleep(1)

    def start(self, name: str, parameters: dict[str, Any]) -> str:
        """Start a run of a deployment; its id."""
        path = f"/deployments/name/{name}"
        deployment = self.must(path)["id"]
        states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        body = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": states}
        # One run of a deployment at a time: a second would be cancelled, or wait.
        self.wait(
            lambda: self.stack.ask("/flow_runs/filter", body) == [],
            self.patience,
            f"another run of {name} has not ended",
        )
        # Its slot comes free a moment after it has ended.
        self.wait(
            lambda: not self._slots(self.stack.ask(path)),
            self.patience,
            f"the slot of {name} has not come free",
        )
        asked = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        return str(self.must(f"/deployments/{deployment}/create_flow_run", asked)["id"])

    @staticmethod
    def _slots(deployment: dict[str, Any] | None) -> int:
        """Taken of the deployment's limit; one where the server does not answer."""
        if deployment is None:
            return 1
        return int((deployment["global_concurrency_limit"] or {}).get("active_slots", 0))

    def run(self, number: str) -> dict[str, Any]:
        """A run as the server has it."""
        found: dict[str, Any] = self.must(f"/flow_runs/{number}")
        return found

    def end(self, number: str) -> dict[str, Any]:
        """A run once it has ended for good, or as it is when patience ends.

        One that crashed is tried again a moment later.
        """
        deadline = time.monotonic() + self.patience
        while True:
            found = self.run(number)
            again = found["state_type"] == "CRASHED" and found["run_count"] < MOST_TRIES
            if (found["state_type"] in ENDED and not again) or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def tasks(self, since: str) -> list[str]:
        """Names of the tasks that run now, and began after a time."""
        running = {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"after_": since}}
        body = {"task_runs": running}
        return sorted(one["name"] for one in self.stack.ask("/task_runs/filter", body) or [])

    def orphans(self) -> list[str]:
        """Processes with our credentials that none of our services has started."""
        known = {one.pid for one in self.stack.processes.known() if one.alive()} | {os.getpid()}
        callers = {one.pid for one in psutil.Process().parents()}
        found = []
        for one in psutil.process_iter():
            try:
                ours = one.environ().get("AWS_ACCESS_KEY_ID") == self.stack.s3.access_key
                family = {one.pid, *(parent.pid for parent in one.parents())}
                if ours and one.pid not in callers and not family & known:
                    found.append(f"{one.pid} {' '.join(one.cmdline())[:80]}")
            except psutil.Error:
                continue
        return found

    def left(self, seconds: float) -> list[str]:
        """Orphans that do not end by themselves in this time."""
        end = time.monotonic() + seconds
        while (found := self.orphans()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def kill(self, name: str, *, with_runs: bool = False) -> None:
        """kill -9 of a service; of a worker alone, or of the runs that it has started too."""
        (found,) = [one for one in self.stack.processes.known() if one.name == name]
        process = psutil.Process(found.pid)
        worker = name.startswith("worker")
        # Of a run only its own process: what that has started must end by itself.
        more = process.children(recursive=not worker) if with_runs or not worker else []
        for one in (process, *more):
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.wait(lambda: not self.stack.processes.alive(name), 60, f"{name} is not dead")
