"""Files that go and come in parts."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from proxy import Faults

from fer.errors import NotFoundError, PackageError, StoreError
from fer.registry import Registry, publish, s3_store, s3_transfer, write_package
from fer.registry.s3_store import S3Store
from fer.registry.store import Store

PART = s3_transfer.DOWNLOAD_PART
SIZE = 2 * PART + 1_234_567


@pytest.fixture(autouse=True)
def _parts_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_MULTIPART", 1_000_000)


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(3).randbytes(SIZE)  # noqa: S311


@pytest.fixture
def s3(store: Store) -> S3Store:
    if not isinstance(store, S3Store):
        pytest.skip("a folder has no parts")
    return store


def test_parts_go_and_come_in_order(s3: S3Store, data: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    moved: list[int] = []
    s3.upload_from("blob", source, hashlib.sha256(data).hexdigest(), moved.append)
    assert sum(moved) == SIZE
    assert len(moved) == 3
    for offset in (0, 1, PART - 1, PART, PART + 1_234_567, 2 * PART + 1, SIZE - 1, SIZE):
        assert b"".join(s3.read("blob", offset)) == data[offset:]
    digest = hashlib.sha256()
    s3.download_to("blob", target, digest=digest)
    assert target.read_bytes() == data
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_read_that_is_given_up_ends(s3: S3Store, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(data)
    s3.upload_from("blob", tmp_path / "in", hashlib.sha256(data).hexdigest())
    blocks = s3.read("blob")
    assert data.startswith(next(blocks))
    blocks.close()  # type: ignore[attr-defined]
    assert next(blocks, None) is None
    with pytest.raises(NotFoundError):
        next(s3.read("absent"))


def test_bytes_of_another_digest_do_not_appear(s3: S3Store, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(StoreError, match=r"changed while it was being uploaded"):
        s3.upload_from("blobs/sha256/x", tmp_path / "in", "0" * 64)
    assert s3.head("blobs/sha256/x") is None
    assert list(s3.leftovers(time.time() + 60)) == []


@pytest.mark.s3
def test_a_lost_answer_to_the_last_request(
    faulty: tuple[Registry, Faults], data: bytes, tmp_path: Path
) -> None:
    registry, faults = faulty
    (tmp_path / "in").write_bytes(data)
    faults.lose_completions = 1
    registry.store.upload_from("blob", tmp_path / "in", hashlib.sha256(data).hexdigest())
    assert faults.lose_completions == 0
    assert b"".join(registry.store.read("blob")) == data


@pytest.mark.s3
def test_a_pull_in_parts_that_breaks(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path
) -> None:
    registry, faults = faulty
    package = make_package(1, size=SIZE)
    registry.register(package.folder)
    # Each part breaks now and then; what came before the break is not asked for again.
    faults.cut_after, faults.cuts = PART * 3 // 4, 3
    assert registry.pull("faces:1").digest == package.digest
    assert faults.cuts == 0
    assert faults.served < 2 * SIZE
    assert not list((tmp_path / "cache" / "models").rglob("*.part"))
    shutil.rmtree(tmp_path / "cache")
    faults.flip = True
    with pytest.raises(PackageError, match=r"altered"):
        registry.pull("faces:1")


def test_an_altered_file_is_found_while_it_goes_up(
    registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_HASHED_FIRST", 1_000_000)
    package = make_package(1, size=6_000_000)
    model = package.file("model.onnx")
    whole = model.read_bytes()
    model.write_bytes(b"X" + whole[1:])
    with pytest.raises(PackageError, match=r"model\.onnx was altered"):
        registry.register(package.folder)
    with pytest.raises(NotFoundError):
        registry.resolve("faces:1")
    model.write_bytes(whole)
    assert registry.register(package.folder).number == 1
    # Nor does an altered file pass because the store has the right one.
    model.write_bytes(b"X" + whole[1:])
    with pytest.raises(PackageError, match=r"model\.onnx was altered"):
        registry.register(package.folder)


@pytest.mark.s3
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_in_parts(
    s3_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_transfer, "UPLOAD_PART", 5 << 20)
    monkeypatch.setattr(s3_transfer, "DOWNLOAD_PART", 4 << 20)
    s3_registry.initialize()
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(80_000_000)
    files = {"model.onnx": tmp_path / "zeros"}
    package = write_package(
        tmp_path / "big", name="faces", description="", files=files, metrics={}, lineage={}
    )
    Path("/proc/self/clear_refs").write_text("5")  # begin counting the peak anew
    before = _peak_mb()
    s3_registry.register(package.folder)
    assert s3_registry.pull("faces:1").digest == package.digest
    assert _peak_mb() - before < 50


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000
