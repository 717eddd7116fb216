"""Ports of this machine that nobody listens on, nor is about to."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import psutil

from fer.errors import WorkflowError

_LAST: Final = 22_767


def free_ports(first: int, count: int) -> list[int]:
    """Ports from `first` on that are free, as is each plus 10,000, which the S3 server takes too.

    All lie below 32768: from there on the system hands ports out to clients, and a client that
    polls such a port can be connected to itself. Services take a while until they listen: as long
    as this process lives, no port is given to this user again.

    Raises:
        WorkflowError: there are not so many.
    """
    with _claims() as file:
        claims = {port: pid for port, pid in _read(file).items() if psutil.pid_exists(pid)}
        found: list[int] = []
        for port in range(first, _LAST):
            if port not in claims and _is_free(port) and _is_free(port + 10_000):
                found.append(port)
                if len(found) == count:
                    _write(file, claims | dict.fromkeys(found, os.getpid()))
                    return found
    raise WorkflowError(f"There are no {count} free ports from {first} on. Stop what holds them.")


@contextmanager
def _claims() -> Iterator[IO[str]]:
    """The file of claims, this process's alone meanwhile."""
    path = Path(tempfile.gettempdir()) / f"fer-ports-{os.getuid()}.json"
    # Of this user only, and no link that somebody else put there.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _read(file: IO[str]) -> dict[int, int]:
    """Which process asked for which port."""
    try:
        return {int(port): int(pid) for port, pid in json.load(file).items()}
    except (ValueError, TypeError, AttributeError):  # new, or cut by a kill: nothing is claimed
        return {}


def _write(file: IO[str], claims: dict[int, int]) -> None:
    file.seek(0)
    file.truncate()
    json.dump(claims, file)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
