"""boto3's client for S3: made once per process, with options that every server takes."""

from __future__ import annotations

import io
import os
import threading
from functools import lru_cache
from typing import Any

from fer.errors import SettingsError

_making = threading.Lock()


def client(endpoint: str | None, addressing: str) -> Any:
    """The client for an endpoint and the present `AWS_*`; threads may share it.

    Args:
        endpoint: URL; None for AWS.
        addressing: auto, path or virtual.

    Raises:
        SettingsError: the endpoint is no URL.
    """
    variables = tuple(sorted(item for item in os.environ.items() if item[0][:4] == "AWS_"))
    with _making:
        return _client(os.getpid(), endpoint, addressing, variables)


@lru_cache(maxsize=8)
def _client(
    process: int, endpoint: str | None, addressing: str, variables: tuple[tuple[str, str], ...]
) -> Any:
    """A boto3 client, thread-safe, shared by all stores of one process and environment.

    Making one costs a third of a second; it is never shared across a fork.
    """
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {
        "signature_version": "s3v4",
        "s3": {"addressing_style": addressing},
        # The newer default sends checksums that several servers refuse.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"mode": "standard"},
        "connect_timeout": 3,
        # A server just restarted may stall a first write by 20 s.
        "read_timeout": 60,
        "max_pool_connections": 32,
    }
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        options["retries"]["max_attempts"] = 5
    try:
        session = boto3.session.Session()
        made = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=session.region_name or "us-east-1",
            config=Config(**options),
        )
        made.meta.events.register("before-sign.s3.PutObject", _send_at_once)
        return made
    except ValueError as error:
        raise SettingsError(
            f"FER_S3_ENDPOINT: {error}. Give a URL such as http://host:port."
        ) from None


def _send_at_once(request: Any, **_: Any) -> None:
    """Send a small body without asking first.

    boto3 announces every body with `Expect: 100-continue` and waits up to 1 s for the answer; a
    conditional write that is refused at once then costs that second (16 writers that compete
    for one key on SeaweedFS: 6 s with it, 0.1 s without).
    """
    if isinstance(request.data, bytes | io.BytesIO):
        del request.headers["Expect"]  # no error where it is not there
