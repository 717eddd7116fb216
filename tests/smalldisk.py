"""A real disk of a few hundred kilobytes for tests, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# $1: mount point, $2: size, $3: where to list what was left; the rest: the command.
_SCRIPT = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 99
listing=$3
disk=$1
shift 3
"$@"
status=$?
(cd "$disk" && find . -mindepth 1) > "$listing"
exit $status
"""


@dataclass
class Outcome:
    """How the command ended, and the files and folders it left on the small disk."""

    status: int
    stdout: str
    stderr: str
    left: list[str]


def on_small_disk(
    disk: Path,
    size: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Outcome:
    """Run a command that sees a disk of `size` at the folder `disk`; skip where none can be had."""
    unshare = shutil.which("unshare")
    if unshare is None or sys.platform != "linux":
        pytest.skip("a small disk needs Linux's unshare")
    disk.mkdir(parents=True, exist_ok=True)
    listing = disk.with_name(disk.name + ".left")
    done = subprocess.run(
        [unshare, "-Urm", "sh", "-c", _SCRIPT, "sh", str(disk), size, str(listing), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
        cwd=folder,
    )
    if not listing.exists():
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    left = sorted(line.removeprefix("./") for line in listing.read_text().splitlines())
    return Outcome(done.returncode, done.stdout, done.stderr, left)
