"""How far a run is, in the Prefect UI."""

from __future__ import annotations

import time
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

_PROGRESS_SECONDS = 5.0


class Progress:
    """Shows in the UI how far a run is; told after every picture, it writes now and then."""

    def __init__(self) -> None:
        self.log = get_run_logger()
        created = create_progress_artifact(
            progress=0.0, key="batch-progress", description="Pictures done."
        )
        self.artifact = cast(UUID, created)  # a coroutine only in asynchronous code
        self.next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self.next and done != total:
            return
        self.next = now + _PROGRESS_SECONDS
        share = 100.0 * done / total if total else 0.0
        try:
            update_progress_artifact(
                self.artifact, round(share, 1), f"{done} of {total or '?'} pictures."
            )
        except Exception as error:  # a server that restarts does not end hours of work
            self.log.debug("The progress could not be shown: %s", error)
