"""Processes of the concurrency tests, forked from one that has imported everything.

worker.py register COUNT FOLDER...              shares the folders out among COUNT processes
worker.py register-same COUNT FOLDER...         every process registers all folders
worker.py promote COUNT NAME ALIAS MOVES        each moves the alias MOVES times
worker.py one-by-one                            a process for each folder that stdin names

The last one says the process id of each, for the test to kill it, and when it has ended. That
process is gone, and its id free again, only after the test's next line.
"""

import json
import os
import sys
import traceback

import boto3  # noqa: F401  (imported before the fork: starting is not what is tested)

from fer.registry import Registry
from fer.registry.store import open_store  # noqa: F401


def work(me: int, action: str, count: int, rest: list[str]) -> list[int]:
    registry = Registry.open()
    if action == "promote":
        name, alias, moves = rest
        version = 1 + me % 2
        return [registry.promote(name, version, alias).generation for _ in range(int(moves))]
    mine = rest[me::count] if action == "register" else rest
    return [registry.register(folder).number for folder in mine]


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def one_by_one() -> None:
    while folder := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            try:
                Registry.open().register(folder)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        say(child)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        say("ended")
        sys.stdin.readline()
        os.waitpid(child, 0)


say("ready")
if sys.argv[1] == "one-by-one":
    one_by_one()
    sys.exit()
action, number, *arguments = sys.argv[1:]
sys.stdin.readline()
pipes = []
for me in range(int(number)):
    reader, writer = os.pipe()
    if os.fork() == 0:
        status = 1
        try:
            os.write(writer, json.dumps(work(me, action, int(number), arguments)).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    pipes.append(reader)
results = []
for reader in pipes:
    with os.fdopen(reader, "rb") as pipe:
        results.append(json.loads(pipe.read() or b"null"))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
sys.stdout.write(json.dumps(results) + "\n")
