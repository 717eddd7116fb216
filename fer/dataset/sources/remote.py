"""Files at https:// and s3:// addresses: resumed after a break, checked by sha256, cached.

<cache>/downloads/<sha256>/<name>        the file, complete and verified; lands by one rename
<cache>/downloads/<sha256>/.<name>.part  a download under way, or to be resumed
<cache>/downloads/<sha256>/.lock         held by the process that downloads it
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from fer.errors import NotFoundError, SourceError, StoreError, UnavailableError, UnreachableError
from fer.files import locked, naming, sha256_of
from fer.settings import settings

MAX_BYTES: Final = 4 << 30
"""More is not read from any address: FER2013 takes 60 MB as images and 300 MB as a table."""
_BLOCK: Final = 1 << 20
_TRIES: Final = 5
"""Tries in a row that bring not one byte more before it is given up."""
_PAUSE = 0.25
"""Seconds before the second try; twice as long before each further one."""
_TIMEOUT: Final = 60
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_TRANSIENT: Final = {408, 425, 429}


class _BrokenError(Exception):
    """The transport failed; another try goes on from where it did."""


class _Block(NamedTuple):
    """Bytes, where in the file they belong, and the size of the file (0: not known)."""

    position: int
    total: int
    data: bytes


def download(url: str, sha256: str | None, progress: Callable[[int, int], None]) -> Path:
    """The local path of a remote file, fetched if it is not cached yet.

    Any number of processes may ask for one file: one of them downloads it.

    Args:
        url: https:// or s3:// address; http:// to this machine alone.
        sha256: hex digest the file must have; required, because a cached file is found by it.
        progress: called with (bytes done, bytes in all or 0 where not known).

    Raises:
        SourceError: no digest given, no such file, or not the file that was named.
        UnreachableError: the network failed time and again; a repeat resumes.
        OSError: the cache cannot be written.
    """
    place = _place(url)
    if sha256 is None:
        raise SourceError(
            f"data.sha256 is required for {_shown(place)}: it says which file is meant."
        )
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(place.path).name)).lstrip(".")[-100:]
    target = settings().cache / "downloads" / sha256 / (name or "download")
    if _is(target, sha256):
        return target
    if settings().offline:
        raise SourceError(
            f"{_shown(place)} is not in the cache and FER_OFFLINE is set. Unset it, or set "
            "FER_DATA to a local copy."
        )
    part = target.with_name(f".{target.name}.part")
    with locked(target.with_name(".lock")):
        # Another process may have fetched it while this one waited.
        if not _is(target, sha256):
            with naming(part):
                _fetch(place, part, sha256, progress)
            part.replace(target)
    return target


def _fetch(
    place: SplitResult, part: Path, sha256: str, progress: Callable[[int, int], None]
) -> None:
    """Fill `part` with the file that has this digest."""
    if part.exists():
        _fill(place, part, progress)
        if _is(part, sha256):
            return
        # What was resumed does not fit what is there now; once more from the start.
        part.unlink()
    _fill(place, part, progress)
    if not _is(part, sha256):
        found = sha256_of(part)
        part.unlink()
        raise SourceError(
            f"{_shown(place)} has sha256 {found}, not {sha256}. If the new file is meant, put "
            "its sha256 into data.sha256; else the publisher or the path is wrong."
        )


def _fill(place: SplitResult, part: Path, progress: Callable[[int, int], None]) -> None:
    """Append to `part` until the file ends; a broken transfer is taken up again."""
    read = _from_s3 if place.scheme == "s3" else _from_web
    most = part.stat().st_size if part.exists() else 0
    failures = 0
    while True:
        try:
            with part.open("r+b" if part.exists() else "w+b") as file:
                for block in read(place, file.seek(0, 2)):
                    if block.position != file.tell():  # a server that ignores ranges starts anew
                        file.seek(block.position)
                        file.truncate()
                    done = file.tell() + len(block.data)
                    if max(done, block.total) > MAX_BYTES:
                        raise SourceError(
                            f"{_shown(place)} has over {MAX_BYTES >> 30} GiB: not FER2013."
                        )
                    file.write(block.data)
                    progress(done, max(block.total, done))
            return
        except _BrokenError as error:
            have = part.stat().st_size
            failures = failures + 1 if have <= most else 0
            most = max(most, have)
            if failures >= _TRIES:
                raise UnreachableError(
                    f"{_shown(place)} cannot be had: {error}, {_TRIES} times in a row. Check the "
                    "address and the network, then run again: what has come is kept."
                ) from None
            time.sleep(_PAUSE * 2**failures)


def _from_web(place: SplitResult, start: int) -> Iterator[_Block]:
    """The bytes from `start` on, or all of them where the server ignores that."""
    headers = {"User-Agent": "fer-workflow"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(place.geturl(), headers=headers)  # noqa: S310 - see _place
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing is left to send: it is whole, or another file
            return
        if error.code < 500 and error.code not in _TRANSIENT:
            raise SourceError(
                f"{_shown(place)} answers {error.code} {error.reason}. Check data.source, and "
                "that the file may be read without a login."
            ) from None
        raise _BrokenError(f"it answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise SourceError(
                f"{_shown(place)} has no certificate that this machine trusts "
                f"({error.reason.verify_message}). Name its authority's file in SSL_CERT_FILE."
            ) from None
        raise _BrokenError(str(error.reason)) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise SourceError(f"{_shown(place)} is no valid address ({error}).") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from None
    with answer:
        position = 0
        if answer.status == 206:
            stated = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
            position = int(stated[1]) if stated else start
            if position > start:
                raise _BrokenError("it answers with another range than was asked for")
        length = answer.headers.get("Content-Length") or ""
        total = position + int(length) if re.fullmatch(r"\d{1,18}", length) else 0
        while True:
            try:
                data = answer.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(str(error) or type(error).__name__) from None
            if not data:
                break
            yield _Block(position, total, data)
            position += len(data)
    if position < total:
        raise _BrokenError(f"it breaks off after {position:,} of {total:,} bytes")


def _from_s3(place: SplitResult, start: int) -> Iterator[_Block]:
    """The bytes of an object from `start` on."""
    from fer.registry.s3_errors import code_of
    from fer.registry.s3_store import S3Store

    class Objects(S3Store):
        """A bucket whose keys are other people's: any name will do."""

        def _key(self, key: str) -> str:
            return key

    url, key = place.geturl(), place.path.lstrip("/")
    store = Objects.from_url(f"s3://{place.netloc}")
    blocks = store.read(key, start)
    position = start
    try:
        # Reading first: its errors name causes, those of HEAD have no text.
        data = next(blocks, b"")
        stat = store.head(key)
    except UnavailableError as error:  # boto3 has tried several times already
        raise UnreachableError(f"{url} cannot be had: {error}") from None
    except NotFoundError:
        raise SourceError(f"{url} does not exist. Check data.source.") from None
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and code_of(cause)[0] == "NoSuchBucket":
            raise SourceError(
                f"There is no bucket {place.netloc!r} at {store.endpoint or 'AWS S3'}. Check "
                "data.source and FER_S3_ENDPOINT."
            ) from None
        raise SourceError(f"{url} cannot be had: {error}") from None
    total = stat.size if stat is not None else 0
    while data:
        yield _Block(position, total, data)
        position += len(data)
        try:
            data = next(blocks, b"")
        except UnavailableError as error:
            raise _BrokenError(str(error)) from None
        except StoreError as error:
            raise SourceError(f"{url} cannot be had: {error}") from None
    if position < total:
        raise _BrokenError(f"it breaks off after {position:,} of {total:,} bytes")


def _place(url: str) -> SplitResult:
    """The parts of an address that may be fetched."""
    try:
        place = urlsplit(url)
        host = place.hostname
    except ValueError as error:
        raise SourceError(f"data.source {url!r} is no valid address ({error}).") from None
    if place.scheme not in {"https", "s3"} and not (place.scheme == "http" and host in _LOOPBACK):
        raise SourceError(
            f"data.source {url!r}: only https:// and s3:// can be fetched. Name one of these, or "
            "a local file."
        )
    if not host or not place.path.strip("/"):
        raise SourceError(f"data.source {url!r} names no file.")
    return place


def _shown(place: SplitResult) -> str:
    """The address without a login and without its query, which may hold a signature."""
    return place._replace(netloc=place.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
