"""Run one command and end it, with all it started, when whoever asked for it is gone.

Used by `flows.stages` as a script: ``guard.py GRACE COMMAND...``. The caller starts it as the
leader of a new session and keeps the write end of its standard input. That pipe is the lifeline:
when it closes, because the caller asked for an end or because it was killed outright (even by
SIGKILL, which nothing can catch), the guard sends SIGTERM to its whole process group, waits
up to GRACE seconds, and sends SIGKILL. So no training outlives its run.

Standard library only, so that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time


def main(arguments: list[str]) -> int:
    """Exit status of the command; 128 + n where signal n ended it."""
    grace, command = float(arguments[0]), arguments[1:]
    # A handler, not SIG_IGN: the guard outlives the SIGTERM that it sends to its own group, and
    # the command does not inherit a deaf ear.
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    # close_fds=False hands on the writer's lock: it stays held until the last process is gone.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)

    def lifeline() -> None:
        while not ending.is_set():
            if not os.read(0, 64):
                ending.set()

    def end() -> None:
        ending.wait()
        os.killpg(0, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # grandchildren may still be writing their last words
        os.killpg(0, signal.SIGKILL)

    for work in (lifeline, end):
        threading.Thread(target=work, daemon=True).start()
    status = child.wait()
    if ending.is_set():
        time.sleep(grace + 5)  # `end` kills this process too, once the group had its time
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
