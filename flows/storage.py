"""Which failures another try may mend: storage that did not answer, nothing else."""

from __future__ import annotations

import errno
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from fer.errors import StoreError, UnavailableError

# Errors of a file system that another try does not mend.
_LASTING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
}


def may_pass(error: object) -> bool:
    """Whether an error is storage that may answer next time, not a wrong address or a bad model.

    Storage that refuses (credentials, permission, no such bucket) refuses the next time as well.
    """
    if isinstance(error, UnavailableError):
        return True
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if not isinstance(cause, OSError) or cause.errno in _LASTING:
        return False
    # boto3's error of a certificate is an OSError too, but none of a file system: it has no number.
    return cause is error or cause.errno is not None


def storage_failed(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry condition of tasks that read or write storage."""
    # Python counts every timeout as an OSError, the task's own too.
    return state.name != "TimedOut" and may_pass(state.result(raise_on_failure=False))
