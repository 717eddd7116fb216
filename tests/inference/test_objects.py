"""A bucket's objects, on a stand-in for the server that misbehaves or notes what it is asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fer.errors import UnavailableError
from fer.inference.objects import Bucket

BODY = b"a picture" * 100


class Server(HTTPServer):
    """Gives BODY for every key, of which it sends `sent` bytes at most; keeps headers of writes."""

    sent = len(BODY)
    written: Message


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        self.wfile.write(BODY[: self.server.sent])

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.written = self.headers
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"tag"')
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        for name, value in {
            "FER_S3_ENDPOINT": f"http://127.0.0.1:{running.server_port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            monkeypatch.setenv(name, value)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def bucket() -> Bucket:
    made = Bucket.from_url("s3://photos")
    assert isinstance(made, Bucket)
    return made


@pytest.mark.parametrize("sent", [0, 100])
def test_an_object_that_breaks_off_may_come_next_time(server: Server, sent: int) -> None:
    assert bucket().fetch("a.jpg", etag="tag") == BODY
    server.sent = sent
    with pytest.raises(UnavailableError, match="cannot be reached"):
        bucket().fetch("a.jpg", etag="tag")


def test_results_ask_for_the_encryption_of_the_settings(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket().save("part.parquet", b"rows", "application/octet-stream")
    assert server.written["x-amz-server-side-encryption"] is None
    monkeypatch.setenv("FER_S3_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("FER_S3_KMS_KEY", "alias/results")
    bucket().save("part.parquet", b"rows", "application/octet-stream")
    assert server.written["x-amz-server-side-encryption"] == "aws:kms"
    assert server.written["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/results"
