"""Ends a training whose workflow is gone, so that a killed `dvc repro` leaves none behind."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


def workflow_alive() -> bool:
    """False once the dvc process that started this one has ended; true outside of DVC."""
    dvc = _dvc_process()
    return dvc is None or bool(dvc.is_running())


@cache
def _dvc_process() -> Any:
    """The nearest ancestor that is dvc, or None outside of a DVC stage."""
    if "DVC_ROOT" not in os.environ:
        return None
    import psutil

    for ancestor in psutil.Process().parents():
        try:
            command = " ".join(ancestor.cmdline()[:4])
        except psutil.Error:
            continue
        if "dvc" in command and "repro" in " ".join(ancestor.cmdline()):
            return ancestor
    return None
