"""A proxy in front of an S3 server that misbehaves on demand, as networks and servers do."""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Faults:
    """What the proxy does wrong; change it while it runs."""

    careless: dict[str, bytes] | None = None  # answers from here, ignoring all conditions
    cut_after: int | None = None  # closes a GET's connection after that many body bytes ...
    cuts: int = 0  # ... this many times
    lose_answers: int = 0  # forwards that many conditional PUTs and closes without the answer
    lose_completions: int = 0  # the same for the last request of an upload in parts
    down: bool = False  # closes every connection without an answer
    html: int | None = None  # answers every request with a web page of this status
    refusal: tuple[int, str] | None = None  # answers every request with this status and S3 error
    flip: bool = False  # flips a bit of every blob
    ranges: list[str] = field(default_factory=list)  # Range headers seen
    served: int = 0  # body bytes of GETs sent


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    faults: Faults
    upstream: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are the point here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Quiet

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _forward(self) -> None:
        faults = self.server.faults
        if faults.down:
            self.close_connection = True
            self.connection.close()
            return
        length = int(self.headers.get("Content-Length") or 0)
        if "100-continue" in self.headers.get("Expect", ""):
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(length)
        if faults.html is not None:
            page = b"<html><body>Welcome to the console</body></html>"
            self._answer(faults.html, "text/html", page)
            return
        if faults.refusal is not None:
            status, code = faults.refusal
            error = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
            self._answer(status, "application/xml", error.encode())
            return
        if faults.careless is not None:
            self._answer_carelessly(faults.careless, body)
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() != "expect"}
        conditional = any(key.lower() in {"if-match", "if-none-match"} for key in headers)
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if self.command == "PUT" and conditional and faults.lose_answers > 0:
            faults.lose_answers -= 1
            self.close_connection = True
            self.connection.close()
            return
        completion = self.command == "POST" and "uploadId=" in self.path
        if completion and faults.lose_completions > 0:
            faults.lose_completions -= 1
            self.close_connection = True
            self.connection.close()
            return
        blob = self.command == "GET" and "/blobs/" in self.path
        if blob and faults.flip and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if blob and "Range" in headers:
            faults.ranges.append(headers["Range"])
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in {"transfer-encoding", "connection", "content-length", "date"}:
                self.send_header(key, value)
        shown = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", shown or str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if blob and faults.cut_after is not None and faults.cuts > 0:
            if len(data) > faults.cut_after:
                faults.cuts -= 1
                data = data[: faults.cut_after]
            self.wfile.write(data)
            self.wfile.flush()
            faults.served += len(data)
            self.close_connection = True
            return
        if blob:
            faults.served += len(data)
        self.wfile.write(data)

    def _answer(self, status: int, kind: str, page: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    def _answer_carelessly(self, objects: dict[str, bytes], body: bytes) -> None:
        """A minimal S3 server that writes whatever the conditions say, as rclone's does."""
        key = urlsplit(self.path).path
        status, data = 200, b""
        if self.command == "PUT":
            objects[key] = body
        elif self.command == "DELETE":
            status = 204
            objects.pop(key, None)
        elif key in objects:
            data = objects[key]
        else:
            status, data = 404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.md5(objects.get(key, b"")).hexdigest()}"')  # noqa: S324
        self.send_header("Last-Modified", self.date_time_string())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[str, Faults]]:
    """Yield the proxy's URL and its faults; `upstream` is the server's URL."""
    server = _Quiet(("127.0.0.1", 0), _Handler)
    server.faults = Faults()
    server.upstream = urlsplit(upstream).netloc
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.faults
    finally:
        server.faults.down = True  # kept-alive connections outlive the server
        server.shutdown()
        thread.join()
        server.server_close()
