"""Objects of an S3 bucket whose keys are other people's: pictures in, results out.

The connection and the meaning of errors are those of the registry's store; only its strict
rule for keys is left out, since a photograph may be called anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final, cast

from fer.errors import ImageError, StoreError
from fer.registry.s3_errors import is_missing_key
from fer.registry.s3_store import S3Store

S3: Final = "s3://"


class Bucket(S3Store):
    """One bucket; `Bucket.from_url("s3://name")` takes endpoint and addressing from settings."""

    def objects(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Key, size and ETag of every object whose key starts with `prefix`, in key order."""
        with self._explained("s3:ListBucket", prefix):
            paginator = self._client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # consoles' stand-in for a folder
                        yield item["Key"], item["Size"], item["ETag"].strip('"')

    def fetch(self, key: str, *, etag: str | None = None, limit: int | None = None) -> bytes:
        """An object's bytes.

        Args:
            key: the whole key.
            etag: what the object must still be.
            limit: bytes above which it is refused unread.

        Raises:
            UnavailableError: the server did not answer, or the object broke off.
            ImageError: it is larger than `limit`.
            StoreError: it has gone, or is no longer what `etag` says; or the bucket cannot be read.
        """
        place = f"s3://{self.bucket}/{key}"
        with self._explained("s3:GetObject", key):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key)
            except Exception as error:
                if is_missing_key(error):
                    raise StoreError(f"{place} went away after it was listed.") from None
                raise
            # Not `with body`: that hands out the raw stream, whose errors boto3 does not wrap.
            with closing(answer["Body"]) as body:
                if etag is not None and answer["ETag"].strip('"') != etag:
                    raise StoreError(
                        f"{place} was replaced after it was listed; the next run takes it."
                    )
                size = int(answer["ContentLength"])
                if limit is not None and size > limit:
                    raise too_large(place, size, limit)
                return bytes(body.read())

    def save(self, key: str, data: bytes, kind: str) -> None:
        """Write an object, whole or not at all."""
        with self._explained("s3:PutObject", key):
            self._client.put_object(
                Bucket=self.bucket, Key=key, Body=data, ContentType=kind, **self._encryption
            )

    def remove(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        with self._explained("s3:DeleteObject", key):
            self._client.delete_object(Bucket=self.bucket, Key=key)


def too_large(place: str, size: int, limit: int) -> ImageError:
    """The error for a file too large to be a picture."""
    return ImageError(
        f"{place} has {size / 2**20:,.0f} MB, above the limit of {limit / 2**20:,.0f} MB for a "
        "picture. Export it smaller."
    )


def split_url(url: str) -> tuple[Bucket, str]:
    """A bucket, and the prefix in it: empty, or ending with a slash.

    Raises:
        SettingsError: the URL names no bucket.
    """
    name, _, prefix = url.removeprefix(S3).partition("/")
    prefix = prefix.strip("/")
    return cast(Bucket, Bucket.from_url(S3 + name)), f"{prefix}/" if prefix else ""
