"""Ports of this machine that nobody listens on."""

from __future__ import annotations

import socket

from fer.errors import WorkflowError

_LAST = 22_767


def free_ports(first: int, count: int) -> list[int]:
    """Ports from `first` on that are free, as is each plus 10,000, which the S3 server takes too.

    All lie below 32768: from there on the system hands ports out to clients, and a client that
    polls such a port can be connected to itself.

    Raises:
        WorkflowError: there are not so many.
    """
    found: list[int] = []
    for port in range(first, _LAST):
        if _is_free(port) and _is_free(port + 10_000):
            found.append(port)
            if len(found) == count:
                return found
    raise WorkflowError(f"There are no {count} free ports from {first} on. Stop what holds them.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
