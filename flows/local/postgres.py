"""PostgreSQL from the distribution, for Prefect's history: a cluster of its own in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from fer.errors import WorkflowError
from flows.local.processes import Processes

USER: Final = "prefect"
DATABASE: Final = "prefect"
NAME: Final = "postgres"
_SECONDS: Final = 120


class Postgres:
    """One server on 127.0.0.1.

    Args:
        processes: where it is started.
        port: it listens on.
        password: of the user `prefect`, its superuser.
    """

    def __init__(self, processes: Processes, port: int, password: str) -> None:
        self.processes = processes
        self.port = port
        self.password = password
        self.data = processes.folder / "postgres"

    @property
    def url(self) -> str:
        """As Prefect wants it."""
        return f"postgresql+asyncpg://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Make the cluster where there is none, start the server, make the database.

        Raises:
            WorkflowError: PostgreSQL is not installed, or does not start.
        """
        programs = _programs()
        become = _other_user(self.data.parent)
        if not (self.data / "PG_VERSION").is_file():
            self._make_cluster(programs, become)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"]
        # A socket needs a short path, which a folder need not have; nothing here uses one.
        options += ["-c", "unix_socket_directories="]
        self.processes.start(
            NAME,
            [*become, programs / "postgres", "-D", self.data, *options],
            _environment(),
            gentle=signal.SIGINT,  # end now, and write everything down
            ports=[self.port],
        )
        self.processes.wait(NAME, lambda: self._asked(programs, "SELECT 1") == "1", _SECONDS)
        if DATABASE not in (self._asked(programs, "SELECT datname FROM pg_database") or "").split():
            self._asked(programs, f"CREATE DATABASE {DATABASE}")

    def dump(self, path: Path) -> None:
        """Write the database to a file, in pg_dump's custom format.

        Raises:
            WorkflowError: PostgreSQL does not answer.
        """
        path.touch(mode=0o600)
        with path.open("wb") as file:
            self._run(["pg_dump", "--format=custom", DATABASE], stdout=file)

    def restore(self, path: Path) -> None:
        """Fill the empty database from a file that `dump` wrote.

        Raises:
            WorkflowError: the database is not empty, or the file is no dump.
        """
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        if self._asked(_programs(), tables, DATABASE) != "0":
            raise WorkflowError(
                "The database is in use already. Restore into a new one: make purge, then again."
            )
        options = ["--exit-on-error", "--single-transaction", "--no-owner"]
        with path.open("rb") as file:
            self._run(["pg_restore", *options, f"--dbname={DATABASE}"], stdin=file)

    def _run(self, command: list[str], **files: Any) -> None:
        name, *options = command
        program = str(_programs() / name)
        done = subprocess.run(
            [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, *options],
            env=_environment() | {"PGPASSWORD": self.password},
            stderr=subprocess.PIPE,
            check=False,
            **files,
        )
        if done.returncode:
            raise WorkflowError(f"{name} failed: {done.stderr.decode(errors='replace').strip()}")

    def _make_cluster(self, programs: Path, become: list[str]) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, mode=0o700)
        secret = self.data.parent / ".postgres-password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        try:
            if become:
                owner = pwd.getpwnam("postgres")
                os.chown(self.data, owner.pw_uid, owner.pw_gid)
                os.chown(secret, owner.pw_uid, owner.pw_gid)
            command = [*become, programs / "initdb", "-D", self.data, "-U", USER, "-E", "UTF8"]
            options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--locale=C"]
            done = subprocess.run(
                [*map(str, command), *options],
                env=_environment(),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            secret.unlink()
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise WorkflowError(f"PostgreSQL's cluster cannot be made: {done.stderr.strip()}")

    def _asked(self, programs: Path, sql: str, database: str = "postgres") -> str | None:
        """The answer's lines; None where there is no answer."""
        done = subprocess.run(
            [
                *(str(programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER),
                *("-d", database, "-tAqc", sql),
            ],
            env=_environment() | {"PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None


def _programs() -> Path:
    """The folder of PostgreSQL's programs; distributions keep them off the PATH."""
    beside = shutil.which("initdb")
    if beside:
        return Path(beside).resolve().parent
    versions = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda path: int(path.parent.parent.name.partition(".")[0]),
    )
    if not versions:
        raise WorkflowError(
            "PostgreSQL is not installed. Install it from the distribution: "
            "apt-get install postgresql (Debian, Ubuntu), brew install postgresql (macOS)."
        )
    return versions[-1].parent


def _other_user(folder: Path) -> list[str]:
    """What to put before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise WorkflowError(
            "PostgreSQL does not run as root, and there is no user postgres. Run this as an "
            "ordinary user."
        ) from None
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    reachable = subprocess.run([*become, "test", "-x", str(folder)], check=False)
    if reachable.returncode:
        raise WorkflowError(
            f"PostgreSQL does not run as root, and its user postgres cannot reach {folder}. Run "
            "this as an ordinary user, or give --folder a place that all users can reach."
        )
    return become


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}
