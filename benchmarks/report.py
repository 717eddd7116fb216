"""What several benchmarks share: workers, medians, and the report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from fer.doctor.machine import processor


class Worker:
    """A program in a process of its own that does one thing per line that it is sent.

    It answers each line with one line of JSON; see `serve`. Between lines it waits, so several
    may live at a time and take turns.
    """

    def __init__(self, program: Path, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def ask(self, line: str) -> Any:
        """Send a line and wait for the answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        # Libraries print too, and their lines are no JSON.
        for answer in self._process.stdout:
            if answer.startswith(_MARK):
                return json.loads(answer.removeprefix(_MARK))
        raise SystemExit(f"A worker ended with status {self._process.wait()} on: {line}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


_MARK = "answer "


def serve(answers: Any) -> None:
    """Answer each line of the standard input by `answers(line)`, until it ends."""
    for line in sys.stdin:
        print(_MARK + json.dumps(answers(line.strip())), flush=True)


def middle(values: Sequence[float], digits: int = 0) -> str:
    """Median and, in brackets, the smallest and the largest."""
    return (
        f"{statistics.median(values):,.{digits}f} "
        f"({min(values):,.{digits}f} to {max(values):,.{digits}f})"
    )


def machine(*packages: str) -> str:
    """Date, processor, load and versions, as measurements state them."""
    versions = [f"{name} {found}" for name in packages if (found := _version(name))]
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {processor()}, load "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, "
        f"{', '.join(versions)}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
