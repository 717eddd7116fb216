"""Large objects to and from S3: several parts at once, one pass over the bytes, flat memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from fer.errors import StoreError, UnavailableError
from fer.registry.s3_errors import code_of
from fer.registry.store import Progress

UPLOAD_PART: Final = 8 << 20
"""Bytes sent at once; S3 wants 5 MB at least."""
DOWNLOAD_PART: Final = 8 << 20
"""Bytes asked for at once; with 4 MB SeaweedFS spends a fifth more time on them."""
_SENDING: Final = 4
_COMING: Final = 8
"""Parts under way or waiting for their turn: at most that many are held in memory."""
_BLOCK: Final = 1 << 18  # 1 MB costs a twentieth more time, in page faults
_MOST_PARTS: Final = 10_000  # S3 takes no more


def upload_parts(
    client: Any,
    place: Mapping[str, str],
    encryption: Mapping[str, str],
    path: Path,
    sha256: str,
    progress: Progress | None = None,
) -> None:
    """Write a file to a key, which appears whole or not at all.

    Hashed are the very bytes that are sent, and each part goes with its own sha256, which the
    server checks: over http as what is signed, over https as its checksum, which buckets with
    object lock demand. boto3 then leaves the body out of the signature, so both hash it once.

    Args:
        client: of boto3.
        place: `Bucket` and `Key`, where to.
        encryption: what the upload asks for, as boto3 names it.
        path: the file, read once.
        sha256: of its bytes.
        progress: called with the bytes of each part.

    Raises:
        StoreError: the file has another sha256; nothing was written.
    """
    checked = _is_https(client)
    options = dict(encryption) | ({"ChecksumAlgorithm": "SHA256"} if checked else {})
    target = dict(place)
    target["UploadId"] = client.create_multipart_upload(**target, **options)["UploadId"]
    try:
        found, parts = _send(client, target, path, progress, checked)
        if found != sha256:
            raise StoreError(f"{path} changed while it was being uploaded. Repeat the command.")
        _complete(client, target, parts, path.stat().st_size)
    except BaseException:
        # What stays of it when this fails too is for the garbage collection.
        with contextlib.suppress(Exception):
            client.abort_multipart_upload(**target)
        raise


def _is_https(client: Any) -> bool:
    return str(client.meta.endpoint_url).startswith("https:")


def _send(
    client: Any, target: dict[str, str], path: Path, progress: Progress | None, checked: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Send all parts; the sha256 of the whole, and the parts as completing wants them."""

    def send(number: int, data: bytes) -> dict[str, Any]:
        # Bytes, not a file: they are hashed and sent at one go, and sent again if need be.
        checksum = {}
        if checked:
            sha256 = hashlib.sha256(data).digest()
            checksum["ChecksumSHA256"] = base64.b64encode(sha256).decode()
        answer = client.upload_part(Body=data, PartNumber=number, **checksum, **target)
        if progress is not None:
            progress(len(data))
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    size = max(UPLOAD_PART, -(-path.stat().st_size // _MOST_PARTS))
    digest = hashlib.sha256()
    parts: list[dict[str, Any]] = []
    sending: set[Future[dict[str, Any]]] = set()
    with path.open("rb") as file, ThreadPoolExecutor(_SENDING) as pool:
        try:
            number = 0
            while data := file.read(size):
                number += 1
                sending.add(pool.submit(send, number, data))
                digest.update(data)
                if len(sending) == _SENDING:
                    sent, sending = wait(sending, return_when=FIRST_COMPLETED)
                    parts += [part.result() for part in sent]
            parts += [part.result() for part in sending]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return digest.hexdigest(), sorted(parts, key=lambda part: int(part["PartNumber"]))


def _complete(client: Any, target: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
    try:
        client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **target)
    except Exception as error:
        # boto3 repeats a request whose answer was lost, and then finds the upload gone.
        if code_of(error)[0] != "NoSuchUpload":
            raise
        if client.head_object(Bucket=target["Bucket"], Key=target["Key"])["ContentLength"] != size:
            raise


def read_parts(client: Any, bucket: str, key: str, offset: int = 0) -> Iterator[bytes]:
    """An object's bytes from `offset` on, in blocks and in order; several parts come at once.

    Where one breaks, everything before the break was given.

    Args:
        client: of boto3.
        bucket: where from.
        key: where from.
        offset: less than the object's size.
    """
    target = {"Bucket": bucket, "Key": key}
    first = client.get_object(Range=_range(offset), **target)
    size = _whole_size(first)
    if size is None or size <= offset + DOWNLOAD_PART:
        with closing(first["Body"]) as body:
            if size is None:
                # A server that ignores ranges starts at the beginning.
                _skip(body, offset)
            while block := body.read(_BLOCK):
                yield block
        return
    ended = threading.Event()

    def fetch(start: int, blocks: SimpleQueue[bytes | BaseException | None]) -> None:
        try:
            answer = first
            if start > offset:
                answer = client.get_object(Range=_range(start), **target)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] != min(DOWNLOAD_PART, size - start):
                    raise UnavailableError(f"{key} changed while it was read. Repeat the command.")
                while not ended.is_set() and (block := body.read(_BLOCK)):
                    blocks.put(block)
            blocks.put(None)
        except BaseException as error:
            blocks.put(error)

    starts = iter(range(offset, size, DOWNLOAD_PART))
    coming: deque[SimpleQueue[bytes | BaseException | None]] = deque()
    with ThreadPoolExecutor(_COMING) as pool:

        def begin() -> None:
            if (start := next(starts, None)) is not None:
                coming.append(SimpleQueue())
                pool.submit(fetch, start, coming[-1])

        try:
            for _ in range(_COMING):
                begin()
            while coming:
                while (block := coming[0].get()) is not None:
                    if isinstance(block, BaseException):
                        raise block
                    yield block
                coming.popleft()
                begin()
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)


def _range(start: int) -> str:
    return f"bytes={start}-{start + DOWNLOAD_PART - 1}"


def _whole_size(answer: dict[str, Any]) -> int | None:
    """Bytes of the whole object, where the answer is a part of it."""
    size = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return int(size) if size.isascii() and size.isdigit() else None


def _skip(body: Any, count: int) -> None:
    while count > 0 and (block := body.read(min(_BLOCK, count))):
        count -= len(block)
