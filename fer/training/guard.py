"""Ends a training whose workflow is gone, so that a killed `dvc repro` leaves none behind."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from functools import cache
from pathlib import PurePath
from typing import Any

_DVC_COMMANDS = {"repro", "exp", "experiments"}


def workflow_alive() -> bool:
    """False once the dvc process that started this one has ended; true outside of DVC."""
    dvc = _dvc_process()
    return dvc is None or _runs(dvc)


def end_with_workflow(every: float = 1.0) -> None:
    """From now on this process ends within seconds of the dvc process that started it.

    A second `dvc repro` then finds nothing that still writes. The end is as abrupt as a kill,
    which a checkpoint stands, and comes also while a graph is built or an epoch is validated,
    where no callback looks. Outside of DVC this does nothing.
    """
    dvc = _dvc_process()
    if dvc is None:
        return

    def watch() -> None:
        while _runs(dvc):
            time.sleep(every)
        text = "fer: the dvc process that started this stage is gone; stopping.\n"
        with contextlib.suppress(OSError, ValueError):  # its terminal may be gone too
            sys.stderr.write(text)
            sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, name="dvc watch", daemon=True).start()


def _runs(process: Any) -> bool:
    """Whether a process still works; one that nobody has waited for yet does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@cache
def _dvc_process() -> Any:
    """The nearest ancestor that is dvc, or None outside of a DVC stage."""
    if "DVC_ROOT" not in os.environ:
        return None
    import psutil

    for ancestor in psutil.Process().parents():
        try:
            command = ancestor.cmdline()
        except psutil.Error:
            continue
        if _is_dvc(command):
            return ancestor
    return None


def _is_dvc(command: list[str]) -> bool:
    """Whether a command line runs stages: `dvc repro`, `python -m dvc exp run`, ...

    >>> _is_dvc(["python", "/venv/bin/dvc", "repro", "train"])
    True
    >>> _is_dvc(["bash", "-c", "cd dvc && make repro"])
    False
    """
    for place, part in enumerate(command[:8]):
        if PurePath(part).name in {"dvc", "dvc.exe"}:
            return bool(_DVC_COMMANDS.intersection(command[place + 1 :]))
    return False
