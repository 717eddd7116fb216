"""What runs inside the images: the health probe, the buckets, the seed, DVC without git."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from seaweed import S3Server, weed_server

from fer import lockfile

IMAGE = Path(__file__).parents[2] / "infra" / "image"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(IMAGE / script), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_healthy(address: str) -> None:
    assert run("healthy.py", f"{address}/well").returncode == 0
    ill = run("healthy.py", f"{address}/ill")
    assert ill.returncode == 1
    assert "503" in ill.stderr


def test_not_healthy_where_nobody_listens() -> None:
    done = run("healthy.py", "http://127.0.0.1:9/")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with weed_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.mark.s3
def test_buckets(s3: S3Server) -> None:
    places = {
        "FER_REGISTRY": "s3://fer/registry",
        "FER_BATCH_INPUT": "s3://photographs/new",
        "FER_BATCH_OUTPUT": "./a/folder",
        "FER_S3_ADDRESSING": "path",
    }
    first = run("buckets.py", **s3.env(), **places)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("created") == 2
    again = run("buckets.py", **s3.env(), **places)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("was there") == 2
    made = {bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]}
    assert {"fer", "photographs"} <= made
    assert s3.client().list_objects_v2(Bucket="fer")["KeyCount"] == 0, "it leaves nothing behind"


@pytest.mark.s3
def test_buckets_with_a_wrong_key_fails_at_once(s3: S3Server) -> None:
    wrong = s3.env() | {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret-key"}
    done = run("buckets.py", **wrong, FER_REGISTRY="s3://fer/registry", FER_S3_ADDRESSING="path")
    assert done.returncode == 1
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "a-wrong-secret-key" not in done.stderr


@pytest.mark.s3
def test_health_path_of_the_s3_server(s3: S3Server, services: dict[str, Any]) -> None:
    path = services["s3"]["healthcheck"]["test"][-1].partition(":8333")[2]
    url = s3.endpoint_url + path
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        assert answer.status == 200


def lay_out(folder: Path, checkout: Path, stages: Any) -> None:
    """`folder` as the stage `project` leaves /opt/fer, by the Dockerfile's own lines."""
    for text in stages["project"].values("COPY"):
        *sources, target = [word for word in text.split() if not word.startswith("--")]
        for source in sources:
            if source in ("fer", "flows"):
                continue  # large, and not what is tested
            there = folder / target / source if target.endswith("/") else folder / target
            there.parent.mkdir(parents=True, exist_ok=True)
            if (checkout / source).is_dir():
                shutil.copytree(checkout / source, there)
            else:
                shutil.copy(checkout / source, there)
    (script,) = [text for text in stages["project"].values("RUN") if "no_scm" in text]
    script = re.sub(r"&& chown .*$", "", script).replace("/var/cache/fer", "cache")
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True)


@pytest.fixture
def no_git(tmp_path: Path) -> str:
    """A PATH with what stages need and without git."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("sh", "cp", "mkdir", "cat", "echo"):
        found = shutil.which(program)
        assert found
        (folder / program).symlink_to(found)
    return str(folder)


def test_seed(tmp_path: Path, checkout: Path, stages: Any) -> None:
    project, volume = tmp_path / "fer", tmp_path / "volume"
    project.mkdir()
    lay_out(project, checkout, stages)
    volume.mkdir()
    command = ["sh", str(project / "infra" / "image" / "seed.sh"), str(volume)]
    subprocess.run(command, check=True)
    assert {path.name for path in volume.iterdir()} == {"data", "models", "reports", "dvc"}
    assert (volume / "dvc" / "config.local").read_text() == "[core]\n    no_scm = true\n"
    assert (volume / "dvc" / "dvc.lock").read_bytes() == (checkout / "dvc.lock").read_bytes()
    (volume / "dvc" / "config").write_text("[core]\n    remote = mine\n")
    (volume / "dvc" / "dvc.lock").write_text("schema: '2.0'\n")
    subprocess.run(command, check=True)
    assert "mine" in (volume / "dvc" / "config").read_text(), "what is there stays"
    assert (volume / "dvc" / "dvc.lock").read_text() == "schema: '2.0'\n"


@pytest.mark.parametrize("kept", [True, False])
def test_a_cut_lock_is_mended_on_the_volume(
    tmp_path: Path, checkout: Path, stages: Any, kept: bool
) -> None:
    project = tmp_path / "fer"
    project.mkdir()
    lay_out(project, checkout, stages)
    link, lock = project / "dvc.lock", project / ".dvc" / "dvc.lock"
    whole = lock.read_bytes()
    if kept:
        assert lockfile.mend(project, project) is None
    lock.write_bytes(whole[:1000])
    project.chmod(0o555)  # the code is root's, and mounted to be read only
    try:
        assert "cut while DVC wrote it" in str(lockfile.mend(project, project))
    finally:
        project.chmod(0o755)
    assert link.is_symlink()
    assert str(link.readlink()) == ".dvc/dvc.lock"
    assert lock.read_bytes() == (whole if kept else lockfile.EMPTY.encode())


@pytest.mark.slow
def test_dvc_works_without_git(tmp_path: Path, checkout: Path, stages: Any, no_git: str) -> None:
    project = tmp_path / "fer"
    project.mkdir()
    lay_out(project, checkout, stages)
    (project / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: mkdir -p data && echo x > data/x\n    outs: [data/x]\n"
    )
    (project / ".dvc" / "dvc.lock").write_text("schema: '2.0'\n")
    environment = {
        "PATH": no_git,
        "HOME": str(tmp_path),
        "DVC_NO_ANALYTICS": "1",
        "SHELL": "/bin/sh",
    }
    environment["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")

    def repro() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Running stage 'one'" in repro()
    assert (project / "dvc.lock").is_symlink(), "it stays on the volume"
    assert "data/x" in (project / ".dvc" / "dvc.lock").read_text()
    assert "up to date" in repro()
    (project / ".dvc" / "dvc.lock").write_bytes(b"")
    lockfile.mend(project, project)
    assert "Running stage" in repro(), "a stage of no input is not in the run cache"
    assert (project / "dvc.lock").is_symlink()
    assert "data/x" in (project / ".dvc" / "dvc.lock").read_text()


def test_lineage_and_version_without_git(
    checkout: Path, no_git: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from fer.lineage import Lineage

    monkeypatch.setenv("PATH", no_git)
    lineage = Lineage.of(checkout)
    assert lineage.version == "no-commit"
    assert lineage.outputs, "the data's hashes need no git"
    document = yaml.safe_load((checkout / "prefect.yaml").read_text(encoding="utf-8"))
    (step,) = document["definitions"]["build"][0].values()
    import shlex

    done = subprocess.run(shlex.split(step["script"]), capture_output=True, text=True)
    assert done.stdout.strip() == "no-commit"
