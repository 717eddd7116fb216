"""One process of the concurrency tests: register packages, or move an alias.

worker.py register FOLDER...           registers each folder
worker.py promote NAME ALIAS VERSION COUNT
"""

import json
import sys

from fer.registry import Registry

action, *rest = sys.argv[1:]
registry = Registry.open()
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
done = []
if action == "register":
    for folder in rest:
        done.append(registry.register(folder).number)  # noqa: PERF401
else:
    name, alias, version, count = rest
    for _ in range(int(count)):
        done.append(registry.promote(name, int(version), alias).generation)  # noqa: PERF401
sys.stdout.write(json.dumps(done) + "\n")
