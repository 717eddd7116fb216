"""Start and stop it all: `make up`, `make down`.

    python -m flows.local.up            start what does not run
    python -m flows.local.up --status   what runs, where, and in how much memory
    python -m flows.local.up --down     stop all of it; the data stay
    python -m flows.local.up --down --purge    and remove the data
    python -m flows.local.up --backup FOLDER   database and bucket into files, while all runs
    python -m flows.local.up --restore FOLDER  start with what a backup holds; nothing may be there

May be interrupted and repeated at any time: what runs is left alone, what is missing is started.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from fer.errors import FerError, WorkflowError
from fer.files import write_json, write_text
from flows.deploy import POOLS
from flows.local.backup import back_up, restore_database, restore_objects
from flows.local.ports import free_ports, give_back
from flows.local.postgres import Postgres
from flows.local.processes import Processes
from flows.local.seaweed import Seaweed, no_cloud

FOLDER: Final = Path("build/up")
BUCKET: Final = "fer"
SERVER: Final = "prefect"
PATIENT_SERVER: Final = {
    # In PREFECT_HOME. By default leases are in the server's memory: a server that restarts then
    # ends the runs that hold one, and keeps the slots of those that have ended for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    # On a busy machine PostgreSQL takes longer than Prefect's 5 and 10 s.
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
}
PATIENT_CLIENT: Final = {
    # With pauses that double, over eight minutes: so long may a server be away before a run minds.
    # By Prefect's own 5 it is one.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    # What a server answers whose database is away.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
}
_SECONDS: Final = 180
# Where the search for free ports begins.
_FIRST_PORTS: Final = {"prefect": 4200, "postgres": 15432, "s3": 18333}


@dataclass(frozen=True)
class Plan:
    """What is decided once and kept: ports and secrets."""

    prefect_port: int
    postgres_port: int
    s3_ports: tuple[int, ...]
    postgres_password: str
    s3_access_key: str
    s3_secret_key: str

    @classmethod
    def of(cls, folder: Path) -> Plan:
        """The plan of a folder; made at the first start.

        Raises:
            WorkflowError: it cannot be read.
        """
        path = folder / "plan.json"
        try:
            document = json.loads(path.read_bytes())
            return cls(**{**document, "s3_ports": tuple(document["s3_ports"])})
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            raise WorkflowError(
                f"{path} cannot be read ({error}). Remove {folder}: its data are lost."
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        plan = cls(
            prefect_port=free_ports(_FIRST_PORTS["prefect"], 1)[0],
            postgres_port=free_ports(_FIRST_PORTS["postgres"], 1)[0],
            s3_ports=tuple(free_ports(_FIRST_PORTS["s3"], 5)),
            postgres_password=secrets.token_hex(16),
            s3_access_key=secrets.token_hex(8),
            s3_secret_key=secrets.token_hex(16),
        )
        write_json(path, asdict(plan), mode=0o600)
        return plan

    def ports(self) -> list[int]:
        """All that the services listen on, but for those that S3 takes beside its own."""
        return [self.prefect_port, self.postgres_port, *self.s3_ports]


class Stack:
    """All services of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.plan = plan = Plan.of(self.folder)
        self.processes = Processes(self.folder)
        self.postgres = Postgres(self.processes, plan.postgres_port, plan.postgres_password)
        self.s3 = Seaweed(self.processes, plan.s3_ports, plan.s3_access_key, plan.s3_secret_key)
        self.api = f"http://127.0.0.1:{plan.prefect_port}/api"
        self.port = plan.prefect_port

    def environment(self) -> dict[str, str]:
        """What makes a shell use these services; the file `env` has it too."""
        return self.s3.environment() | {
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "FER_REGISTRY": f"s3://{BUCKET}/registry",
            "FER_BATCH_INPUT": f"s3://{BUCKET}/photographs",
            "FER_BATCH_OUTPUT": f"s3://{BUCKET}/results",
        }

    def up(self, restored: Path | None = None) -> None:
        """Start what does not run, and deploy.

        Args:
            restored: a backup to begin with, where nothing is there yet.

        Raises:
            WorkflowError: a service does not start or has ended, or there is nothing to restore.
        """
        _say("1/5  PostgreSQL")
        self.postgres.start()
        if restored:
            restore_database(self.postgres, restored)
        _say("2/5  S3 (SeaweedFS)")
        self.s3.start(BUCKET)
        if restored:
            _say(f"     {restore_objects(self.s3, BUCKET, restored)} objects restored")
        _say("3/5  Prefect server")
        self.start_server()
        _say("4/5  Pools, limits and deployments")
        self._deploy()
        _say("5/5  Workers")
        for pool in POOLS:
            self.start_worker(pool)
        for pool in POOLS:
            self.processes.wait(f"worker-{pool}", partial(self._online, pool), _SECONDS)
        for name in self.status():
            self.processes.need(name)
        self.write_environment()

    def write_environment(self) -> None:
        """Write the file `env`, for a shell that is to use these services."""
        lines = ["unset AWS_SESSION_TOKEN AWS_PROFILE"]  # of another S3
        lines += [
            f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()
        ]
        write_text(self.folder / "env", "\n".join(lines) + "\n", mode=0o600)

    def down(self, *, purge: bool) -> None:
        """Stop all; with `purge`, remove the data too."""
        self.processes.stop(lambda name: _say(f"stopping {name}"))
        if purge:
            shutil.rmtree(self.folder, ignore_errors=True)
            give_back(self.plan.ports())

    def back_up(self, folder: Path) -> None:
        """Write database and bucket to a folder; they must run."""
        note = back_up(self.postgres, self.s3, BUCKET, folder)
        _say(
            f"{folder}: the database ({note['database_bytes']:,} bytes) and {note['objects']} "
            f"objects ({note['object_bytes']:,} bytes)"
        )

    def status(self) -> dict[str, bool]:
        """Whether each service runs, by name."""
        wanted = ["postgres", "s3", SERVER, *(f"worker-{pool}" for pool in POOLS)]
        return {name: self.processes.alive(name) for name in wanted}

    def start_worker(self, pool: str) -> None:
        """Start a pool's worker, unless it runs."""
        name = f"worker-{pool}"
        self._prefect(name, "worker", "start", "--pool", pool, "--name", self._worker(pool))

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """The Prefect API's answer to GET, or to POST where there is a body; None without one."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.api + path, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except OSError:
            return None

    def start_server(self) -> None:
        """Start the Prefect server, unless it runs, and wait until it answers."""
        (self.folder / "prefect").mkdir(exist_ok=True)
        # With its background services in one process: apart, without Redis between them, events
        # and task runs get lost (infra/containers.md).
        options = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._prefect(SERVER, "server", "start", *options, server=True)
        self.processes.wait(SERVER, self._healthy, _SECONDS)

    def _prefect(self, name: str, *arguments: str, server: bool = False) -> None:
        environment = no_cloud(os.environ) | self.environment()
        if server:
            environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.postgres.url
            environment |= PATIENT_SERVER
            # Work of a server has no business with credentials of workers.
            for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                environment.pop(secret, None)
        else:
            environment = PATIENT_CLIENT | environment
        self.processes.start(
            name,
            [sys.executable, "-m", "prefect", *arguments],
            environment,
            ports=[self.port] if server else [],
        )

    def _deploy(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "flows.deploy"],
            env=no_cloud(os.environ) | self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkflowError(f"The deployments were not made. It said:\n{done.stdout[-1500:]}")

    def _healthy(self) -> bool:
        return self.ask("/health") is True

    def _worker(self, pool: str) -> str:
        """A worker's name in Prefect."""
        return f"up-{pool}"

    def _online(self, pool: str) -> bool:
        """Whether the server has heard of the worker that runs, and not of one before it."""
        # The system tells the start of a process to the second; a worker takes longer to begin.
        since = self.processes.started(f"worker-{pool}") + 1
        workers = self.ask(f"/work_pools/{pool}/workers/filter", {}) or []
        return any(
            worker["name"] == self._worker(pool)
            and datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() > since
            for worker in workers
        )


def main() -> None:
    """Start, stop or tell; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.local.up",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="data, logs and secrets")
    parser.add_argument("--status", action="store_true", help="say what runs")
    parser.add_argument("--down", action="store_true", help="stop all of it")
    parser.add_argument("--purge", action="store_true", help="with --down: remove the data too")
    parser.add_argument("--backup", type=Path, metavar="FOLDER", help="write a backup")
    parser.add_argument("--restore", type=Path, metavar="FOLDER", help="begin with a backup")
    arguments = parser.parse_args()
    if arguments.purge and not arguments.down:
        parser.error("--purge goes with --down")
    try:
        asked = arguments.down or arguments.status or arguments.backup
        if asked and not arguments.folder.is_dir():
            _say(f"Nothing is there: {arguments.folder} does not exist.")
            return
        stack = Stack(arguments.folder)
        if arguments.down:
            stack.down(purge=arguments.purge)
        elif arguments.backup:
            stack.back_up(arguments.backup)
        elif not arguments.status:
            stack.up(arguments.restore)
        _tell(stack, arguments.folder)
    except FerError as error:
        print(f"up: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def _tell(stack: Stack, folder: Path) -> None:
    running = stack.status() if folder.is_dir() else {}
    for name, runs in running.items():
        memory = f"{stack.processes.memory(name):6.0f} MB" if runs else ""
        _say(f"{'runs   ' if runs else 'stopped'}  {name:12}{memory}".rstrip())
    if any(running.values()):
        _say(f"\nPrefect   {stack.api.removesuffix('/api')}")
        _say(f"S3        {stack.s3.endpoint}, bucket {BUCKET}")
        _say(f"In a shell:  . {folder}/env   then  fer doctor")
        _say(f"Logs: {folder}/logs.  Stop: make down (the data stay), make purge (they do not)")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command's own words


if __name__ == "__main__":
    main()
