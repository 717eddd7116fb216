"""Downloads from a real web server, well-behaved and not, and from a real S3 server."""

from __future__ import annotations

import hashlib
import http.server
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from seaweed import S3Server

from fer.dataset.sources import remote
from fer.dataset.sources.remote import download
from fer.errors import SettingsError, SourceError, UnreachableError

CONTENT = random.Random(1).randbytes(3 << 20)  # noqa: S311
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server has and how it behaves; `asked` are the ranges it was asked for."""

    content: bytes = CONTENT
    ranges: bool = True
    status: int = 200
    failures: int = 10**9
    """How many answers have `status`; then it is 200."""
    breaks: Callable[[int], int | None] = lambda count: None
    """Bytes after which the n-th answer breaks off; None: never."""
    chunked: bool = False
    stated: int | None = None
    """Content-Length, if it lies."""
    location: str | None = None
    url: str = ""
    asked: list[str | None] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(self.headers.get("Range"))
        self.close_connection = True
        if site.location is not None and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if site.status != 200 and len(site.asked) <= site.failures:
            self.send_response(site.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if site.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(site.content) > 0 and start:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}"
            )
        cut = site.breaks(len(site.asked))
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            stated = len(body) if site.stated is None else site.stated
            self.send_header("Content-Length", str(stated))
        self.end_headers()
        sent = body if cut is None else body[:cut]
        if site.chunked:
            for at in range(0, len(sent), 65536):
                piece = sent[at : at + 65536]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    here = Site()
    handler = type("Here", (Handler,), {"site": here})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        here.url = f"http://127.0.0.1:{server.server_port}/data/fer2013.zip"
        yield here
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "downloads"


def get(url: str, digest: str | None = DIGEST) -> Path:
    return download(url, digest, lambda done, total: None)


def files(folder: Path) -> list[str]:
    """Files in the cache, without the lock."""
    return sorted(one.name for one in folder.rglob("*") if one.is_file() and one.name != ".lock")


def test_a_file_is_fetched_once_and_then_cached(site: Site, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = download(site.url, DIGEST, lambda done, total: calls.append((done, total)))
    assert path == cache / DIGEST / "fer2013.zip"
    assert path.read_bytes() == CONTENT
    assert calls == sorted(calls)
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert get(site.url) == path
    assert site.asked == [None]
    assert files(cache) == ["fer2013.zip"]


def test_a_damaged_cached_file_is_fetched_anew(site: Site) -> None:
    path = get(site.url)
    path.write_bytes(b"damaged")
    assert get(site.url).read_bytes() == CONTENT
    assert site.asked == [None, None]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_transfer_that_breaks_off_at_random_points_is_resumed(
    site: Site, seed: int, chunked: bool
) -> None:
    rng = random.Random(seed)  # noqa: S311
    site.chunked = chunked
    site.breaks = lambda count: rng.randrange(1, len(CONTENT) // 3) if count < 12 else None
    assert get(site.url).read_bytes() == CONTENT
    starts = [int(one.removeprefix("bytes=").rstrip("-")) for one in site.asked[1:] if one]
    assert len(starts) == len(site.asked) - 1 > 2
    assert starts == sorted(starts)  # nothing is fetched twice


def test_a_server_that_ignores_ranges_is_read_from_its_start(site: Site) -> None:
    site.ranges = False
    site.breaks = lambda count: len(CONTENT) // 2 if count < 4 else None
    assert get(site.url).read_bytes() == CONTENT
    assert len(site.asked) == 4


def test_what_a_break_left_is_resumed_by_a_later_run(site: Site, cache: Path) -> None:
    site.breaks = lambda count: 1 << 20 if count == 1 else 0
    with pytest.raises(UnreachableError, match="run again: what has come is kept") as caught:
        get(site.url)
    assert caught.value.exit_code == 1
    assert "1,048,576 of 3,145,728 bytes" in str(caught.value)
    assert files(cache) == [".fer2013.zip.part"]
    site.breaks = lambda count: None
    site.asked.clear()
    assert get(site.url).read_bytes() == CONTENT
    assert site.asked == ["bytes=1048576-"]
    assert files(cache) == ["fer2013.zip"]


def test_a_server_that_always_breaks_off_is_given_up(site: Site) -> None:
    rng = random.Random(3)  # noqa: S311
    site.ranges = False
    site.breaks = lambda count: rng.randrange(len(CONTENT))
    with pytest.raises(UnreachableError):
        get(site.url)
    assert len(site.asked) < 100


def test_a_whole_file_left_as_a_part_is_only_checked(site: Site, cache: Path) -> None:
    part = cache / DIGEST / ".fer2013.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert get(site.url).read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1000])
def test_a_part_of_another_file_is_thrown_away(site: Site, cache: Path, size: int) -> None:
    part = cache / DIGEST / ".fer2013.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(size))
    assert get(site.url).read_bytes() == CONTENT
    assert files(cache) == ["fer2013.zip"]


def test_another_file_than_was_named_is_refused_and_not_kept(site: Site, cache: Path) -> None:
    site.content = b"another"
    other = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(SourceError, match=f"has sha256 {other}, not {DIGEST}") as caught:
        get(site.url)
    assert not isinstance(caught.value, UnreachableError)
    assert caught.value.exit_code == 2
    assert files(cache) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(site: Site, cache: Path, status: int) -> None:
    site.status = status
    with pytest.raises(SourceError, match=f"answers {status}") as caught:
        get(site.url)
    assert not isinstance(caught.value, UnreachableError)
    assert len(site.asked) == 1
    assert [one for one in files(cache) if not one.endswith(".part")] == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_out_of_order_is_asked_again(site: Site, status: int) -> None:
    site.status = status
    site.failures = 2
    assert get(site.url).read_bytes() == CONTENT
    assert len(site.asked) == 3


def test_a_server_that_stays_out_of_order_is_unreachable(site: Site) -> None:
    site.status = 500
    with pytest.raises(UnreachableError, match="answers 500"):
        get(site.url)
    assert len(site.asked) == 5


def test_a_moved_file_is_followed(site: Site) -> None:
    site.location = "/moved"
    assert get(site.url).read_bytes() == CONTENT


@pytest.mark.parametrize("stated", [5 << 30, 10**30])
def test_a_file_too_large_to_be_fer2013_is_refused(site: Site, stated: int) -> None:
    site.stated = stated
    if stated > 10**18:  # no length at all, then: it is read until it ends
        assert get(site.url).read_bytes() == CONTENT
    else:
        with pytest.raises(SourceError, match="over 4 GiB"):
            get(site.url)


def test_a_stream_without_end_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 1 << 20)
    site.chunked = True
    with pytest.raises(SourceError, match="not FER2013"):
        get(site.url)


def test_nobody_listening_is_unreachable(site: Site) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError, match="refused"):
        get(f"http://127.0.0.1:{port}/fer2013.zip")


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_server_that_speaks_no_http_is_unreachable(site: Site, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(5):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnreachableError):
            get(f"http://127.0.0.1:{server.getsockname()[1]}/fer2013.zip")
        thread.join()


def test_a_certificate_nobody_knows_is_not_a_matter_of_trying_again(
    site: Site, tmp_path: Path
) -> None:
    import ssl
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = type("Here", (Handler,), {"site": site})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with pytest.raises(SourceError, match="certificate") as caught:
            get(f"https://127.0.0.1:{server.server_port}/fer2013.zip")
        server.shutdown()
        thread.join()
    assert not isinstance(caught.value, UnreachableError)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://example.org/fer2013.zip", "only https:// and s3://"),
        ("http://127.0.0.1.example.org/fer2013.zip", "only https:// and s3://"),
        ("ftp://example.org/fer2013.zip", "only https:// and s3://"),
        ("file:///etc/passwd", "only https:// and s3://"),
        ("https://example.org", "names no file"),
        ("https:///fer2013.zip", "names no file"),
        ("s3://bucket", "names no file"),
        ("https://[half/fer2013.zip", "no valid address"),
        ("http://127.0.0.1:port/fer2013.zip", "no valid address"),
        ("http://127.0.0.1/a b.zip", "no valid address"),
        ("http://127.0.0.1/\u00e4.zip", "no valid address"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        get(url)
    assert not isinstance(caught.value, UnreachableError)


def test_a_digest_is_required() -> None:
    with pytest.raises(SourceError, match=r"data\.sha256 is required"):
        get("https://example.org/fer2013.zip", None)


def test_offline_only_the_cache_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_OFFLINE", "1")
    with pytest.raises(SourceError, match="FER_OFFLINE"):
        get(site.url)
    monkeypatch.delenv("FER_OFFLINE")
    path = get(site.url)
    monkeypatch.setenv("FER_OFFLINE", "1")
    site.asked.clear()
    assert get(site.url) == path
    assert site.asked == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/..", "download"),
        ("/a%2F..%2F..%2Fb.zip", "a_.._.._b.zip"),
        ("/fer%202013.csv?Signature=secret", "fer_2013.csv"),
        ("/" + "x" * 300 + ".tar.gz", "x" * 93 + ".tar.gz"),
        ("/.hidden", "hidden"),
    ],
)
def test_no_address_leads_out_of_the_cache(site: Site, cache: Path, path: str, name: str) -> None:
    site.url = site.url.removesuffix("/data/fer2013.zip")
    assert get(site.url + path) == cache / DIGEST / name


def test_messages_hold_no_signature_and_no_login(site: Site) -> None:
    site.status = 403
    url = site.url + "?X-Amz-Signature=topsecret"
    with pytest.raises(SourceError) as caught:
        get(url)
    assert "topsecret" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        get("https://user:topsecret@example.org/fer2013.zip", None)
    assert "topsecret" not in str(caught.value)


def test_of_many_who_ask_one_downloads(site: Site) -> None:
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(get(site.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.read_bytes() == CONTENT for path in results} == {True}
    assert len(results) == 4
    assert site.asked == [None]


@pytest.fixture
def bucket(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    weed.use(monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    client = weed.client()
    client.put_object(Bucket="datasets", Key="FER 2013/fer2013 (1).zip", Body=CONTENT)
    return client


@pytest.mark.s3
def test_an_object_is_fetched_whatever_its_key(bucket: Any, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    url = "s3://datasets/FER 2013/fer2013 (1).zip"
    path = download(url, DIGEST, lambda done, total: calls.append((done, total)))
    assert path == cache / DIGEST / "fer2013__1_.zip"
    assert path.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.s3
@pytest.mark.parametrize("size", [1 << 20, len(CONTENT)])
def test_a_part_of_an_object_is_resumed(bucket: Any, cache: Path, size: int) -> None:
    part = cache / DIGEST / ".fer2013__1_.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:size])
    calls: list[int] = []
    url = "s3://datasets/FER 2013/fer2013 (1).zip"
    path = download(url, DIGEST, lambda done, total: calls.append(done))
    assert path.read_bytes() == CONTENT
    assert all(done > size for done in calls)
    assert bool(calls) == (size < len(CONTENT))


@pytest.mark.s3
def test_another_object_than_was_named_is_refused(bucket: Any, cache: Path) -> None:
    bucket.put_object(Bucket="datasets", Key="other.zip", Body=b"other")
    with pytest.raises(SourceError, match="has sha256"):
        get("s3://datasets/other.zip")
    assert files(cache) == []


@pytest.mark.s3
@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://datasets/absent.zip", r"absent\.zip does not exist"),
        ("s3://no-such-bucket/fer2013.zip", "no bucket 'no-such-bucket'"),
    ],
)
def test_an_absent_object_or_bucket_is_named(bucket: Any, url: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        get(url)
    assert not isinstance(caught.value, UnreachableError)
    assert "REGISTRY" not in str(caught.value)


@pytest.mark.s3
def test_wrong_credentials_are_no_matter_of_trying_again(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SourceError, match="credentials") as caught:
        get("s3://datasets/FER 2013/fer2013 (1).zip")
    assert not isinstance(caught.value, UnreachableError)
    assert "wrong" not in str(caught.value)


@pytest.mark.s3
def test_a_store_that_does_not_answer_is_unreachable(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("FER_S3_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match="cannot be reached"):
        get("s3://datasets/fer2013.zip")


def test_a_bucket_name_that_is_none_is_named() -> None:
    with pytest.raises((SettingsError, SourceError), match="bucket"):
        get("s3://-/fer2013.zip")
