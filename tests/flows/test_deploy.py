"""`python -m flows.deploy` where there is no server to deploy to: one line, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer.errors import WorkflowError
from flows.deploy import need_server
from flows.local.ports import free_ports


@pytest.fixture
def nowhere() -> str:
    """An address that nobody listens on."""
    return f"127.0.0.1:{free_ports(14000, 1)[0]}/api"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a web server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def deploy(checkout: Path, home: Path, url: str | None) -> tuple[int, list[str]]:
    """Exit status, and what it said line by line."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    environment |= {"PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"}
    if url is not None:
        environment["PREFECT_API_URL"] = url
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout.splitlines()


def test_a_server_that_does_not_answer(checkout: Path, tmp_path: Path, nowhere: str) -> None:
    status, (line,) = deploy(checkout, tmp_path, f"http://{nowhere}")
    assert status == 1
    assert line.startswith(f"deploy: http://{nowhere} is no Prefect API that answers: ")
    assert "prefect server start" in line


@pytest.mark.parametrize("url", [None, ""])
def test_no_server_is_named(checkout: Path, tmp_path: Path, url: str | None) -> None:
    """Prefect would take one of its own, say that all is well, and end it."""
    status, (line,) = deploy(checkout, tmp_path, url)
    assert status == 2
    assert line.startswith("deploy: PREFECT_API_URL is not set")


def refused(url: str) -> str:
    """Why there is nothing to deploy to at an address."""
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(WorkflowError) as caught,
    ):
        need_server()
    return str(caught.value)


def test_a_login_in_the_address_is_not_shown(nowhere: str) -> None:
    said = refused(f"http://me:sesame-open@{nowhere}")
    assert said.startswith("http://****")
    assert "sesame" not in said


def test_an_address_that_is_none() -> None:
    assert "nonsense is no Prefect API" in refused("nonsense")


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (401, b"{}", "PREFECT_API_AUTH_STRING"),
        (404, b"{}", "ends with /api"),
        (200, b"<html>", "correct PREFECT_API_URL"),
    ],
)
def test_a_server_that_is_another(status: int, body: bytes, advice: str) -> None:
    with answering(status, body) as url:
        said = refused(url)
    assert said.startswith(url)
    assert advice in said
