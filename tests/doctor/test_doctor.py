"""What `fer doctor` says of what is there, of what is not, and of what is broken."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from fer.cli import app
from fer.doctor import machine, prefect_api, storage
from fer.doctor.check import Check, Finding
from fer.errors import StoreError
from fer.registry import Registry
from fer.registry.store import Store

runner = CliRunner()


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FER_REGISTRY", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_this_installation_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "registry"))
    Registry.open().initialize()
    result = runner.invoke(app, ["doctor", "--project", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["ok"] is True
    found = {one["name"]: one["status"] for one in document["checks"]}
    assert set(found) == {
        *("python", "packages", "cache", "gpu", "model", "detector", "params"),
        *("registry", "registry write", "registry clock", "dvc lock", "dvc remote", "prefect"),
    }
    assert {found[name] for name in ("params", "dvc lock", "dvc remote", "prefect")} == {"skipped"}
    assert {status for name, status in found.items() if found[name] != "skipped"} == {"ok"}


def test_a_failure_is_the_exit_status_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "absent"))
    (tmp_path / "params.yaml").write_text("sed: 1\n")
    result = runner.invoke(app, ["doctor", "--project", str(tmp_path)])
    assert result.exit_code == 1
    assert "FAIL registry" in result.stdout
    assert "FAIL params" in result.stdout
    assert "ok   model" in result.stdout  # the other checks went on


def test_what_a_check_raises_is_a_finding() -> None:
    def ours() -> list[Finding]:
        raise StoreError("The bucket is absent. Make it.")

    def theirs() -> list[Finding]:
        raise ZeroDivisionError("oh")

    assert Check("a", ours).run() == [Finding("a", "failed", "The bucket is absent", "Make it.")]
    (finding,) = Check("b", theirs).run()
    assert (finding.status, finding.text) == ("failed", "ZeroDivisionError: oh")


def test_a_package_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-thing>=1", 'other-thing>=1; extra == "train"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    finding = by_name(machine.versions())["packages"]
    assert finding.status == "failed"
    assert "numpy" in finding.text
    assert "no-such-thing is missing" in finding.text
    assert "other-thing" not in finding.text
    assert "make install" in finding.advice


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "file" / "cache"))
    (finding,) = Check("cache", machine.disk).run()
    assert finding.status == "failed"


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cards, of which TensorFlow sees those that CUDA leaves it: at most one."""
    programs = {
        "nvidia-smi": "case $1 in *name,uuid*) printf 'H200, GPU-1aa\\nH200, GPU-2bb\\n';; "
        "*) printf 'H200\\nH200\\n';; esac",
        "python": "echo 1",
    }
    for name, lines in programs.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda name: str(tmp_path / name))
    monkeypatch.setattr(machine.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(machine, "_installed", lambda *_: True)


@pytest.mark.parametrize(
    ("chosen", "status"),
    [
        ("0", "ok"),
        ("1", "ok"),
        ("GPU-2bb", "ok"),
        ("MIG-3cc", "ok"),
        ("1,7,0", "ok"),  # CUDA stops at the first that is not there
        ("0,1", "failed"),  # TensorFlow sees one
        (None, "failed"),
        ("", "ok"),
        ("-1", "ok"),
        ("2", "failed"),
        ("GPU-9", "failed"),
    ],
)
@pytest.mark.usefixtures("two_cards")
def test_one_of_two_cards(monkeypatch: pytest.MonkeyPatch, chosen: str | None, status: str) -> None:
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    (finding,) = machine.gpu()
    assert finding.status == status, finding
    assert finding.text.startswith("H200, H200")
    assert bool(finding.advice) == (status == "failed")


def test_a_reader_is_warned_not_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "registry"))
    Registry.open().initialize()

    def refuse(self: Store, key: str, data: bytes) -> str:
        raise StoreError("Access denied. Ask for s3:PutObject.")

    monkeypatch.setattr("fer.registry.folder_store.FolderStore.put", refuse)
    found = by_name(storage.registry())
    assert found["registry"].status == "ok"
    assert found["registry write"] == Finding(
        "registry write", "warning", "readable only: Access denied", "Ask for s3:PutObject."
    )


def test_a_single_writer_is_warned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FER_SINGLE_WRITER", "1")
    monkeypatch.setenv("FER_REGISTRY", "s3://models/fer")
    folder = Registry.open(str(tmp_path / "registry"))
    folder.initialize()
    monkeypatch.setattr(storage.Registry, "open", lambda url: folder)
    finding = by_name(storage.registry())["registry write"]
    assert finding.status == "warning"
    assert "nothing keeps two writers apart" in finding.text


def test_a_store_that_ignores_conditions_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "registry"))
    Registry.open().initialize()
    monkeypatch.setattr("fer.registry.store._probed", set())
    monkeypatch.setattr(
        "fer.registry.folder_store.FolderStore.create_if_absent",
        lambda self, key, data: self.put(key, data),
    )
    finding = by_name(storage.registry())["registry write"]
    assert finding.status == "failed"
    assert "ignores If-None-Match" in finding.text
    assert "FER_SINGLE_WRITER" in finding.advice


def test_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.clock("x", time.time() + 5).status == "ok"
    finding = storage.clock("x", time.time() + 3600)
    assert finding.status == "failed"
    assert "3600 s behind" in finding.text


def test_a_dvc_lock(tmp_path: Path) -> None:
    assert storage.dvc_lock(tmp_path)[0].status == "skipped"
    (tmp_path / ".dvc").mkdir()
    assert storage.dvc_lock(tmp_path)[0].status == "ok"
    (tmp_path / "dvc.lock").write_bytes(b"")
    (finding,) = storage.dvc_lock(tmp_path)
    assert finding.status == "failed"
    assert "git checkout dvc.lock" in finding.advice


def test_a_dvc_lock_behind_a_link(tmp_path: Path) -> None:
    """As in the images: there is no git, and DVC refuses a link to nothing."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "dvc.lock").write_bytes(b"")
    (tmp_path / "dvc.lock").symlink_to(".dvc/dvc.lock")
    (finding,) = storage.dvc_lock(tmp_path)
    assert finding.status == "failed"
    command, _, _ = finding.advice.partition(": DVC takes")
    subprocess.run(["sh", "-c", command], check=True)
    assert storage.dvc_lock(tmp_path)[0].status == "ok"
    assert (tmp_path / "dvc.lock").is_symlink()


def test_a_dvc_remote(tmp_path: Path) -> None:
    from dvc.repo import Repo

    assert storage.dvc_remote(tmp_path)[0].status == "skipped"
    with Repo.init(str(tmp_path), no_scm=True):
        pass
    config = tmp_path / ".dvc" / "config"
    assert "no default remote" in storage.dvc_remote(tmp_path)[0].text
    config.write_text(
        f"[core]\n no_scm = true\n remote = there\n['remote \"there\"']\n url = {tmp_path}/remote\n"
    )
    (finding,) = storage.dvc_remote(tmp_path)
    assert (finding.status, "there at" in finding.text) == ("ok", True)
    (tmp_path / "file").write_text("")
    config.write_text(config.read_text().replace("/remote", "/file/remote"))
    (finding,) = Check("dvc remote", lambda: storage.dvc_remote(tmp_path)).run()
    assert finding.status == "failed"


class _Server(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        status, body = self.answers.get(self.path.removeprefix("/api"), (404, {}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An API whose answers, by path, the test decides; a real one is asked in tests/flows."""
    server = HTTPServer(("127.0.0.1", 0), _Server)
    monkeypatch.setattr(_Server, "answers", {})
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield _Server.answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_prefect_states(answers: dict[str, Any]) -> None:
    answers.update(
        {
            "/admin/version": (200, metadata.version("prefect")),
            "/work_pools/cpu": (200, {"is_paused": False}),
            "/work_pools/cpu/workers/filter": (
                200,
                [{"name": "w1", "status": "ONLINE"}, {"name": "w2", "status": "OFFLINE"}],
            ),
            "/flow_runs/filter": (200, [{"expected_start_time": "2020-01-01T00:00:00Z"}]),
        }
    )
    found = by_name(prefect_api.server())
    assert found["prefect"].status == found["prefect clock"].status == "ok"
    assert found["pool cpu"] == Finding("pool cpu", "ok", "1 online: w1")
    assert found["pool gpu"].advice == "Create it: make deploy."
    assert found["late runs"].status == "warning"

    answers["/work_pools/gpu"] = (200, {"is_paused": True})
    answers["/work_pools/cpu/workers/filter"] = (200, [])
    answers["/flow_runs/filter"] = (200, [])
    answers["/admin/version"] = (200, "2.0.0")
    found = by_name(prefect_api.server())
    assert found["pool gpu"].advice == "prefect work-pool resume gpu"
    assert "no worker is online" in found["pool cpu"].text
    assert found["late runs"].status == "ok"
    assert found["prefect"].status == "warning"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {}), "PREFECT_API_AUTH_STRING"),
        ((404, {}), "ends with /api"),
        ((200, b"<html>"), "prefect server start"),
    ],
)
def test_a_prefect_that_is_none(answers: dict[str, Any], answer: Any, said: str) -> None:
    answers["/admin/version"] = answer
    (finding,) = prefect_api.server()
    assert finding.status == "failed"
    assert said in finding.advice


def test_a_prefect_that_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/api", "file:///etc/passwd", "nonsense"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        (finding,) = prefect_api.server()
        assert finding.status == "failed"
        assert "does not answer" in finding.text
