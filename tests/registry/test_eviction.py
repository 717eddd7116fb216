"""The cache's size limit: the longest unused go, and nothing that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fer.errors import SettingsError
from fer.registry import Registry
from fer.registry.eviction import RECENT, cached, evict
from fer.settings import settings

SIZE = 20_000


@pytest.fixture
def cache(folder_registry: Registry, make_package: Any, tmp_path: Path) -> Path:
    """The cache's folder, with four packages in the registry."""
    for seed in range(1, 5):
        folder_registry.register(make_package(seed, size=SIZE).folder)
    return tmp_path / "cache" / "models"


def _pull(number: int, ago: float) -> str:
    """Pull a version, let go of it, and make that long ago."""
    registry = Registry.open()
    package = registry.pull(f"faces:{number}")
    path = registry.cache.folder / ".used" / package.digest
    os.utime(path, (time.time() - ago, time.time() - ago))
    return package.digest


def test_the_longest_unused_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [_pull(number, RECENT * 10 - number) for number in (1, 2, 3)]
    assert [one.digest for one in cached(cache)] == digests
    monkeypatch.setenv("FER_CACHE_LIMIT", "50KB")
    _pull(1, RECENT * 2)  # used again, so that the second is the longest unused
    registry = Registry.open()
    fourth = registry.pull("faces:4")
    assert {one.digest for one in cached(cache)} == {digests[0], fourth.digest}
    assert fourth.file("model.onnx").stat().st_size == SIZE
    # What went comes back when it is wanted.
    assert registry.pull("faces:2").digest == digests[1]


def test_what_is_held_or_was_just_used_stays(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = Registry.open().pull("faces:1")
    os.utime(cache / ".used" / held.digest, (1, 1))
    old = _pull(2, RECENT * 2)
    recent = _pull(3, RECENT / 2)
    assert evict(cache, 0) == [old]
    assert "over FER_CACHE_LIMIT" in caplog.text
    assert {one.digest for one in cached(cache)} == {held.digest, recent}
    assert held.file("model.onnx").is_file()
    digest = held.digest
    del held
    assert evict(cache, 0) == [digest]
    assert evict(cache, None) == []


def test_a_package_of_another_process_stays(cache: Path) -> None:
    code = (
        "from fer.registry import pull; import sys; p = pull('faces:1');"
        "print(p.digest, flush=True); sys.stdin.readline(); p.file('model.onnx').read_bytes()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        digest = process.stdout.readline().strip()
        os.utime(cache / ".used" / digest, (1, 1))
        assert evict(cache, 0) == []
        process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert evict(cache, 0) == [digest]
    assert not list(cache.glob("sha256-*"))


def test_the_rest_of_a_killed_eviction_goes(cache: Path) -> None:
    _pull(1, RECENT * 2)
    (cache / ".gone-abc").mkdir()
    (cache / ".gone-abc" / "model.onnx").write_bytes(b"x")
    assert evict(cache, 1 << 20) == []
    assert not list(cache.glob(".gone-*"))


@pytest.mark.slow
def test_processes_that_pull_into_a_cache_too_small(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds what it pulled whole, however often the others evict."""
    monkeypatch.setenv("FER_CACHE_LIMIT", "30KB")
    code = (
        "import sys, random; from fer.registry import Registry, eviction;"
        "eviction.RECENT = 0.0; r = Registry.open(); rng = random.Random(int(sys.argv[1]))\n"
        "for _ in range(25):\n"
        "    p = r.pull(f'faces:{rng.randint(1, 4)}')\n"
        f"    assert len(p.file('model.onnx').read_bytes()) == {SIZE}\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(me)], stderr=subprocess.PIPE, text=True)
        for me in range(3)
    ]
    for process in processes:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    monkeypatch.setattr("fer.registry.eviction.RECENT", 0.0)
    evict(cache, 0)
    assert not list(cache.glob("sha256-*"))


def test_the_limit_is_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_CACHE_LIMIT", "1.5GB")
    assert settings().cache_limit == 1_500_000_000
    monkeypatch.setenv("FER_CACHE_LIMIT", "much")
    with pytest.raises(SettingsError, match=r"FER_CACHE_LIMIT"):
        settings()
