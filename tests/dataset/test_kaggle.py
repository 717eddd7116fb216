"""Kaggle as the source, through the real kagglehub: its cache, and a server in Kaggle's place."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from facefiles import silent, tree, write_folder, write_zip

from fer.dataset.sources.folder import read_folder
from fer.dataset.sources.kaggle import kaggle_folder
from fer.errors import SourceError, UnreachableError

pytest.importorskip("kagglehub")

HANDLE = "someone/faces/versions/1"
PORT = 7777  # where kagglehub's own tests have their server: KAGGLE_API_ENVIRONMENT=TEST


@dataclass
class Kaggle:
    """What the server in Kaggle's place answers."""

    status: int = 200
    content: bytes = b""
    cut: int | None = None
    asked: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    kaggle: Kaggle

    def do_GET(self) -> None:
        kaggle = self.kaggle
        kaggle.asked += 1
        if self.headers.get("Content-Length"):
            self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(kaggle.status)
        self.send_header("Content-Length", str(len(kaggle.content)))
        self.end_headers()
        self.wfile.write(kaggle.content[: kaggle.cut])

    do_POST = do_GET  # noqa: N815 - its name there

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, an empty cache, no way to the real Kaggle."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("no_proxy", "localhost")


@pytest.fixture
def kaggle() -> Iterator[Kaggle]:
    here = Kaggle()
    handler = type("Here", (Handler,), {"kaggle": here})
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        pytest.skip(f"port {PORT} is taken")
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield here
        server.shutdown()
        thread.join()


def test_a_dataset_is_downloaded_once(
    kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.content = write_zip(tmp_path / "f.zip", tree()).read_bytes()
    folder = kaggle_folder(HANDLE)
    assert len(list(read_folder(folder, silent))) == 35
    asked = kaggle.asked
    assert kaggle_folder(HANDLE) == folder
    assert kaggle.asked == asked
    assert capsys.readouterr().out == ""


def test_offline_the_cache_alone_is_asked(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_OFFLINE", "1")
    with pytest.raises(SourceError, match="FER_OFFLINE"):
        kaggle_folder(HANDLE)
    folder = tmp_path / "kaggle" / "datasets" / "someone" / "faces" / "versions"
    write_folder(folder, {"1/train/sad/1.png": b""})
    with pytest.raises(SourceError, match="FER_OFFLINE"):  # not marked as complete
        kaggle_folder(HANDLE)
    (folder.parent / "1.complete").touch()
    assert kaggle_folder(HANDLE) == folder / "1"
    assert kaggle.asked == 0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final_and_names_the_way_out(kaggle: Kaggle, status: int) -> None:
    kaggle.status = status
    with pytest.raises(SourceError, match=f"{status}.*FER_DATA") as caught:
        kaggle_folder(HANDLE)
    assert not isinstance(caught.value, UnreachableError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_out_of_order_may_be_tried_again(kaggle: Kaggle, status: int) -> None:
    kaggle.status = status
    with pytest.raises(UnreachableError, match=str(status)):
        kaggle_folder(HANDLE)


def test_a_transfer_that_breaks_off_may_be_tried_again(kaggle: Kaggle, tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "f.zip", tree()).read_bytes()
    kaggle.content, kaggle.cut = whole, len(whole) // 2
    with pytest.raises(UnreachableError):
        kaggle_folder(HANDLE)
    kaggle.cut = None
    assert len(list(read_folder(kaggle_folder(HANDLE), silent))) == 35


def test_nobody_listening_may_be_tried_again() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is taken")
    with pytest.raises(UnreachableError) as caught:
        kaggle_folder(HANDLE)
    assert "\n" not in str(caught.value)
