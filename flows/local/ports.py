"""Ports of this machine that nobody listens on, nor is about to."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
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
    as this process lives, or until it gives it back, no port is given to this user again.

    Raises:
        WorkflowError: there are not so many.
    """
    with _claims() as file:
        claims = _living(file)
        found: list[int] = []
        for port in range(first, _LAST):
            if port not in claims and is_free(port) and is_free(port + 10_000):
                found.append(port)
                if len(found) == count:
                    _write(file, claims | dict.fromkeys(found, os.getpid()))
                    return found
    raise WorkflowError(f"There are no {count} free ports from {first} on. Stop what holds them.")


def give_back(ports: Iterable[int]) -> None:
    """End this process's claims on ports; the file of claims goes with the last claim."""
    given = set(ports)
    with _claims() as file:
        left = {
            port: pid
            for port, pid in _living(file).items()
            if pid != os.getpid() or port not in given
        }
        if left:
            _write(file, left)
        else:
            _path().unlink()


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _path() -> Path:
    return Path(tempfile.gettempdir()) / f"fer-ports-{os.getuid()}.json"


@contextmanager
def _claims() -> Iterator[IO[str]]:
    """The file of claims, this process's alone meanwhile."""
    while True:
        # Of this user only, and no link that somebody else put there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(_path(), flags, 0o600), "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it before may have removed it: then this is a file that nobody else finds.
            if _is_there(file):
                yield file
                return


def _is_there(file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(_path()))
    except FileNotFoundError:
        return False


def _living(file: IO[str]) -> dict[int, int]:
    """The claims of processes that live."""
    return {port: pid for port, pid in _read(file).items() if psutil.pid_exists(pid)}


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
