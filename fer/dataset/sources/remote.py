"""Files at https:// and s3:// addresses: resumed after a break, checked by sha256, cached."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from fer.errors import SourceError
from fer.files import sha256_of
from fer.settings import settings

_BLOCK: Final = 1 << 20
_ATTEMPTS: Final = 5
_TIMEOUT: Final = 60


def download(url: str, sha256: str | None, progress: Callable[[int, int], None]) -> Path:
    """The local path of a remote file, fetched if it is not cached yet.

    Args:
        url: https:// or s3:// address.
        sha256: hex digest the file must have; required, because a cached file is found by it.
        progress: called with (bytes done, bytes in all).

    Raises:
        SourceError: no digest given, not reachable, or not the file that was named.
    """
    if sha256 is None:
        raise SourceError(f"data.sha256 is required for {url}: it says which file is meant.")
    name = PurePosixPath(urlsplit(url).path).name or "download"
    target = settings().cache / "downloads" / sha256 / name
    if target.exists():
        if sha256_of(target) == sha256:
            return target
        target.unlink()
    if settings().offline:
        raise SourceError(f"{url} is not in the cache and FER_OFFLINE is set.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            (_from_s3 if url.startswith("s3://") else _from_web)(url, part, progress)
            break
        except (OSError, urllib.error.URLError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise SourceError(f"{url} answers {error.code} {error.reason}.") from None
            if attempt == _ATTEMPTS:
                raise SourceError(
                    f"{url} broke off {_ATTEMPTS} times ({error}). Run again to resume."
                ) from None
            time.sleep(min(2**attempt, 10) / 2)
    if (found := sha256_of(part)) != sha256:
        part.unlink()
        raise SourceError(
            f"{url} has sha256 {found}, not {sha256}. If the new file is meant, "
            "put its sha256 into data.sha256; else the publisher or the path is wrong."
        )
    os.replace(part, target)
    return target


def _from_web(url: str, part: Path, progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fer-workflow"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - scheme checked by caller
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole, or not this file
            return
        raise
    with answer:
        if have and answer.status != 206:
            have = 0  # the server ignores ranges
        total = have + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                progress(have, max(total, have))
    if have < total:
        raise ConnectionError(f"got {have} of {total} bytes")


def _from_s3(url: str, part: Path, progress: Callable[[int, int], None]) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(url)
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": settings().s3_addressing},
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 3},
        connect_timeout=3,
        read_timeout=_TIMEOUT,
    )
    have = part.stat().st_size if part.exists() else 0
    try:
        client = boto3.client("s3", endpoint_url=settings().s3_endpoint, config=config)
        where = {"Bucket": place.netloc, "Key": place.path.lstrip("/")}
        total = client.head_object(**where)["ContentLength"]
        if have >= total:
            return
        body = client.get_object(**where, Range=f"bytes={have}-")["Body"]
        with part.open("ab") as file:
            for block in body.iter_chunks(_BLOCK):
                file.write(block)
                have += len(block)
                progress(have, total)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise SourceError(
            f"{url}: the store answers {code}. Check the address, FER_S3_ENDPOINT and AWS_*."
        ) from None
    except BotoCoreError as error:
        raise ConnectionError(str(error)) from None
