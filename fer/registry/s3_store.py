"""A bucket, or a prefix in one, as a store: AWS and S3-compatible servers, through boto3.

Truth rests on conditional writes alone (`If-None-Match: *`, `If-Match`); tags, user metadata,
bucket versioning and lifecycle rules are never relied on, since several servers ignore them.
Credentials, profile and region are boto3's own chain; the endpoint is FER_S3_ENDPOINT.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from fer.errors import (
    ConflictError,
    FerError,
    NotFoundError,
    SettingsError,
    StoreError,
    UnavailableError,
)
from fer.registry.s3_client import client
from fer.registry.s3_errors import code_of, explain, is_missing_key, not_s3
from fer.registry.s3_transfer import read_parts, upload_parts
from fer.registry.store import (
    MAX_DOCUMENT,
    Progress,
    Stat,
    Store,
    Stored,
    check_key,
    check_prefix,
    missing,
)
from fer.settings import settings

_log = logging.getLogger(__name__)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_MULTIPART: Final = 16 << 20
"""Larger files go up in parts and in parallel."""
_ATTEMPTS: Final = 8
"""Tries of a conditional write that the server answers with 409 (a race is being settled)."""


class S3Store(Store):
    """Keys below `prefix` of a bucket; the entity tag of a value is the server's ETag.

    Args:
        bucket: the bucket's name; it must exist.
        prefix: keys' common prefix without slashes at its ends; may be empty.
        endpoint: URL of an S3-compatible server; None for AWS or what AWS_ENDPOINT_URL says.
        addressing: auto, path or virtual. With an endpoint, auto means path: few such servers
            have a wildcard DNS name.
        encryption: what each write asks for, as boto3 names it (ServerSideEncryption,
            SSEKMSKeyId); without it the bucket's default holds.
        offline: refuse every request.
        single_writer: send no conditions, but look before each write. Of two writers at once, one
            may be lost; for servers that ignore conditions.
    """

    page_size = 1000
    """Keys per request of a listing; servers allow no more."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        addressing: str = "auto",
        encryption: Mapping[str, str] | None = None,
        offline: bool = False,
        single_writer: bool = False,
    ) -> None:
        if addressing not in {"auto", "path", "virtual"}:
            raise SettingsError(f"FER_S3_ADDRESSING is {addressing!r}; use auto, path or virtual.")
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.identity = f"{endpoint or 'aws'}|{self.url}"
        self._encryption = dict(encryption or {})
        self._offline = offline
        self._single_writer = single_writer
        self._addressing = "path" if addressing == "auto" and endpoint else addressing
        self._root = f"{prefix}/" if prefix else ""

    @classmethod
    def from_url(cls, url: str) -> S3Store:
        """The store that s3://bucket/prefix names, with the endpoint of the settings.

        Raises:
            SettingsError: no bucket, a prefix that is no key, or a key without encryption.
        """
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/")
        if not _BUCKET.fullmatch(bucket):
            raise SettingsError(f"{url!r} names no bucket. Write s3://bucket/prefix.")
        if prefix:
            try:
                check_key(prefix)
            except StoreError:
                raise SettingsError(
                    f"{url!r}: use lower-case letters, digits and ._- in the prefix, no empty "
                    "segment."
                ) from None
        now = settings()
        endpoint = now.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or None
        encryption: dict[str, str] = {}
        if now.s3_encryption:
            encryption["ServerSideEncryption"] = now.s3_encryption
        if now.s3_kms_key:
            if not (now.s3_encryption or "").startswith("aws:kms"):
                raise SettingsError("FER_S3_KMS_KEY needs FER_S3_ENCRYPTION=aws:kms. Set both.")
            encryption["SSEKMSKeyId"] = now.s3_kms_key
        return cls(
            bucket,
            prefix,
            endpoint=endpoint,
            addressing=now.s3_addressing,
            encryption=encryption,
            offline=now.offline,
            single_writer=now.single_writer,
        )

    def get(self, key: str, limit: int = MAX_DOCUMENT) -> Stored:
        with self._explained("s3:GetObject", key):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
            except Exception as error:
                if is_missing_key(error):
                    raise missing(self.url, key) from None
                raise
            # Not `with body`: that hands out the raw stream, whose errors boto3 does not wrap.
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] > limit:
                    raise StoreError(
                        f"{self.url}/{key} has more than {limit:,} bytes: no registry document."
                    )
                return Stored(body.read(), answer.get("ETag", ""))

    def put(self, key: str, data: bytes) -> str:
        return self._put(key, data, {})

    def create_if_absent(self, key: str, data: bytes) -> str:
        return self._put_conditionally(key, data, {"IfNoneMatch": "*"})

    def swap(self, key: str, data: bytes, etag: str) -> str:
        return self._put_conditionally(key, data, {"IfMatch": etag})

    def delete(self, key: str) -> None:
        with self._explained("s3:DeleteObject", key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        for page in self._pages(prefix, {}):
            for item in page.get("Contents", []):
                name = item["Key"][len(self._root) :]
                if name and not name.endswith("/"):
                    yield Stat(name, item["Size"], item["LastModified"].timestamp())

    def folders(self, prefix: str) -> Iterator[str]:
        for page in self._pages(prefix, {"Delimiter": "/"}):
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"][len(self._root) + len(prefix) :].rstrip("/")

    def head(self, key: str) -> Stat | None:
        with self._explained("s3:GetObject", key):
            try:
                answer = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
            except Exception as error:
                if is_missing_key(error):
                    return None
                if code_of(error)[0] in {"400", "403"}:
                    self._ask_why(key)
                raise
        if "LastModified" not in answer:
            raise not_s3(self.endpoint or "AWS S3")
        return Stat(key, answer["ContentLength"], answer["LastModified"].timestamp())

    def _ask_why(self, key: str) -> None:
        """Raise the reason of a refused HEAD, whose answer has no body: GET's has one."""
        answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
        answer["Body"].close()

    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        with self._explained("s3:GetObject", key):
            try:
                yield from read_parts(self._client, self.bucket, self._key(key), offset)
            except Exception as error:
                if is_missing_key(error):
                    raise missing(self.url, key) from None
                if code_of(error)[1] == 416:  # nothing lies beyond the offset
                    return
                raise

    def upload_from(
        self, key: str, path: Path, sha256: str, progress: Progress | None = None
    ) -> None:
        with self._explained("s3:PutObject", key):
            if path.stat().st_size > _MULTIPART:
                target = {"Bucket": self.bucket, "Key": self._key(key)}
                upload_parts(self._client, target, self._encryption, path, sha256, progress)
                return
            with path.open("rb") as file:
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=self._key(key),
                    Body=file,
                    # The one checksum that servers old and new verify or ignore, never mangle.
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                    **self._encryption,
                )
            if progress is not None:
                progress(path.stat().st_size)

    def leftovers(self, before: float, *, remove: bool = False) -> Iterator[tuple[str, int]]:
        # Parts of uploads that never ended: kept, and charged for, though no listing shows them.
        try:
            with self._explained("s3:ListBucketMultipartUploads", ""):
                pages = self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self.bucket, Prefix=f"{self._root}blobs/"
                )
                uploads = [upload for page in pages for upload in page.get("Uploads", [])]
        except StoreError as error:
            _log.warning("Unfinished uploads were not looked for: %s", error)
            return
        for upload in uploads:
            if upload["Initiated"].timestamp() >= before:
                continue
            if remove:
                with self._explained("s3:AbortMultipartUpload", upload["Key"]):
                    self._client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
            yield f"upload {upload['Key'][len(self._root) :]}", 0

    @property
    def _client(self) -> Any:
        if self._offline:
            raise UnavailableError(
                f"FER_OFFLINE is set, so {self.url} is not asked. Unset it, or use what is cached."
            )
        return client(self.endpoint, self._addressing)

    def _key(self, key: str) -> str:
        return self._root + check_key(key)

    def _put(self, key: str, data: bytes, conditions: dict[str, str]) -> str:
        with self._explained("s3:PutObject", key):
            return self._put_raw(key, data, conditions)

    def _put_raw(self, key: str, data: bytes, conditions: dict[str, str]) -> str:
        answer = self._client.put_object(
            Bucket=self.bucket,
            Key=self._key(key),
            Body=data,
            ContentType="application/json",
            ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
            **conditions,
            **self._encryption,
        )
        if "ETag" not in answer:
            raise not_s3(self.endpoint or "AWS S3")
        return str(answer["ETag"])

    def _put_conditionally(self, key: str, data: bytes, conditions: dict[str, str]) -> str:
        if self._single_writer:
            return self._put_after_a_look(key, data, conditions.get("IfMatch"))
        with self._explained("s3:PutObject", key):
            for attempt in range(_ATTEMPTS):
                try:
                    return self._put_raw(key, data, conditions)
                except Exception as error:
                    code, status = code_of(error)
                    # AWS answers 404 where If-Match meets no object, others 412.
                    gone = status == 404 and code != "NoSuchBucket" and "IfMatch" in conditions
                    if status == 412 or gone:
                        return self._own_write_or_conflict(key, data)
                    if status != 409:
                        raise
                    # S3: a concurrent conditional write is being settled; try again.
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
            raise ConflictError(f"{self.url}/{key} is being written by others. Repeat.")

    def _put_after_a_look(self, key: str, data: bytes, etag: str | None) -> str:
        """What a condition does, as far as it can be had without: there is one writer."""
        try:
            stored = self.get(key)
        except NotFoundError:
            stored = None
        if stored is not None and stored.data == data:
            return stored.etag
        if (stored.etag if stored else None) != etag:
            raise ConflictError(f"{self.url}/{key} was written by somebody else first.")
        return self._put(key, data, {})

    def _own_write_or_conflict(self, key: str, data: bytes) -> str:
        """boto3 repeats a write whose answer was lost, and then meets its own first try."""
        try:
            stored = self.get(key)
        except NotFoundError:
            raise ConflictError(f"{self.url}/{key} is gone.") from None
        if stored.data == data:
            return stored.etag
        raise ConflictError(f"{self.url}/{key} was written by somebody else first.")

    def _pages(self, prefix: str, more: dict[str, str]) -> Iterator[dict[str, Any]]:
        full = self._root + check_prefix(prefix)
        with self._explained("s3:ListBucket", prefix):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = {"PageSize": self.page_size}
            yield from paginator.paginate(
                Bucket=self.bucket, Prefix=full, PaginationConfig=pages, **more
            )

    @contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        """Turn what boto3 raises into errors that say what to do."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except FerError:
            raise
        except (BotoCoreError, ClientError) as error:
            raise self._meaning(error, doing, key) from error

    def _meaning(self, error: Exception, doing: str, key: str) -> Exception:
        endpoint = self.endpoint or "AWS S3"
        place = f"{self.url}/{key}".rstrip("/")
        return explain(error, bucket=self.bucket, place=place, doing=doing, endpoint=endpoint)
