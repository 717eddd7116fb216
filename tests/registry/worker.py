"""Processes of the concurrency tests, forked from one that has imported everything.

worker.py register COUNT FOLDER...              shares the folders out among COUNT processes
worker.py register-same COUNT FOLDER...         every process registers all folders
worker.py promote COUNT NAME ALIAS MOVES        each moves the alias MOVES times
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


action, number, *arguments = sys.argv[1:]
sys.stdout.write("ready\n")
sys.stdout.flush()
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
