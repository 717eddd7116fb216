"""One writer at a time in a DVC project.

Two `dvc repro` in one project would overwrite each other's outputs. Two locks keep them apart:
Prefect's global concurrency limit `dvc-repro`, where the server has one (it also covers workers
on several machines), and a file lock in the project, which needs no server and goes by itself
when its holder dies.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fer.errors import WorkflowError

LIMIT = "dvc-repro"
GPU_LIMIT = "gpu"
# A lease that nobody renews any more ends after this: how long a killed run blocks the next one.
_LEASE_SECONDS = 60
_POLL_SECONDS = 0.5
_REMIND_SECONDS = 60.0

Log = logging.Logger | logging.LoggerAdapter[Any]


def dvc_root(project: Path) -> Path:
    """The folder with `.dvc` that `project` is in.

    Raises:
        WorkflowError: there is none.
    """
    here = project.resolve()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise WorkflowError(
        f"{here} is not in a DVC project (no .dvc folder). Pass the project's own folder."
    )


@contextmanager
def slot(limit: str, log: Log, timeout: float) -> Iterator[None]:
    """Hold a slot of a Prefect concurrency limit; nothing where the server has no such limit.

    Raises:
        WorkflowError: none came free in `timeout` seconds.
    """
    with ExitStack() as stack:
        _take_limit(stack, limit, log, timeout)
        yield


@contextmanager
def writer(
    project: Path, purpose: str, log: Log, *, limit: str | None = LIMIT, timeout: float
) -> Iterator[int]:
    """Hold the right to write in `project`; yield the descriptor of its lock.

    A process that inherits the descriptor keeps the lock until it ends.

    Args:
        purpose: what the waiting ones are told, such as "stage train".
        limit: name of a Prefect concurrency limit to take first, or None outside a run.
        timeout: seconds to wait for each of the two.

    Raises:
        WorkflowError: somebody else kept the project for longer than `timeout`.
    """
    with ExitStack() as stack:
        if limit is not None:
            _take_limit(stack, limit, log, timeout)
        folder = dvc_root(project) / ".dvc" / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "fer-writer.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        stack.callback(os.close, descriptor)
        _take_file(descriptor, path, log, timeout)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _who(purpose).encode(), 0)
        yield descriptor


def _take_limit(stack: ExitStack, limit: str, log: Log, timeout: float) -> None:
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit)
        except ObjectNotFound:
            return  # a server without deployments: the file lock alone does
    # Prefect says nothing while it waits; this does.
    said = threading.Timer(
        3, log.info, (f"Waiting for a slot of the concurrency limit '{limit}'.",)
    )
    said.daemon = True
    said.start()
    try:
        stack.enter_context(
            concurrency(
                limit,
                occupy=1,
                timeout_seconds=timeout,
                lease_duration=_LEASE_SECONDS,
                strict=False,
                # A server that restarts must not end hours of training: the file lock still holds.
                raise_on_lease_renewal_failure=False,
            )
        )
    except TimeoutError:
        raise WorkflowError(
            f"No slot of the concurrency limit '{limit}' came free in {timeout:.0f} s. "
            f"See who holds it with `prefect gcl inspect {limit}`."
        ) from None
    finally:
        said.cancel()


def _take_file(descriptor: int, path: Path, log: Log, timeout: float) -> None:
    started = time.monotonic()
    reminder = started
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            holder = _holder(path)
            if now - started >= timeout:
                raise WorkflowError(
                    f"Another run has been writing this project for {timeout:.0f} s ({holder}). "
                    "Wait for it or cancel it, then run this one again."
                ) from None
            if now >= reminder:
                log.info(f"Waiting: another run writes this project ({holder}).")
                reminder = now + _REMIND_SECONDS
            time.sleep(_POLL_SECONDS)
        else:
            return


def _who(purpose: str) -> str:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps(
        {"purpose": purpose, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    )


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return "{purpose}, process {pid} on {host}, since {since}".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):
        return "who is not known"
