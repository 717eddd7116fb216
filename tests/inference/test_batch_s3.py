"""Batches from and to a real S3 server, with keys as photographers name them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fer.errors import SettingsError, StoreError, UnavailableError, UsageError
from fer.inference.batch import run_batch
from fer.inference.inputs import open_inputs
from fer.inference.objects import Bucket
from fer.inference.outputs import open_output
from fer.inference.results import read_part
from fer.inference.scale import HerePool, ShareJob, run_share, run_shares
from fer.inference.shares import Share
from fer.params import FacesParams

pytestmark = pytest.mark.s3
Encode = Callable[..., bytes]
SURE = FacesParams(min_score=0.3)  # leaves out chance finds just over HOG's threshold


def seaweed() -> ModuleType:
    """tests/seaweed.py, whatever the import mode is."""
    path = Path(__file__).parent.parent / "seaweed.py"
    spec = importlib.util.spec_from_file_location("seaweed_of_inference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with seaweed().weed_server(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture
def s3(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    return server


def rows_at(url: str) -> list[dict[str, Any]]:
    output = open_output(url)
    parts = [read_part(output.read(name)) for name in output.names("parts")]
    return pa.concat_tables(parts).to_pylist() if parts else []


def test_from_bucket_to_bucket_and_again(
    s3: Any, model: Path, folder: Path, astronaut: np.ndarray, encode: Encode
) -> None:
    bucket, client = s3.make_bucket("photos"), s3.client()
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"Trip 2026/ä+b/{path.relative_to(folder)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="Trip 2026/ä+b/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="Trip 2026/ä+b-other/z.jpg", Body=b"")
    where, out = f"s3://{bucket}/Trip 2026/ä+b", f"s3://{bucket}/Results/Run 1"

    first = run_batch(where, out, model=model, faces=SURE, part_size=4)
    assert (first.pictures, first.analysed, first.quarantined) == (9, 6, 3)
    assert (first.faces, first.ignored, first.failed) == (4, 1, 0)
    rows = rows_at(out)
    assert len(rows) == 6
    assert {row["uri"] for row in rows} >= {f"{where}/a.jpg", f"{where}/more deep/c é.JPG"}
    etag = client.head_object(Bucket=bucket, Key="Trip 2026/ä+b/a.jpg")["ETag"].strip('"')
    assert {row["etag"] for row in rows if row["uri"].endswith("/a.jpg")} == {etag}

    again = run_batch(where, out, model=model, faces=SURE)
    assert (again.skipped, again.analysed) == (9, 0)
    # The same bytes written again keep their ETag; other bytes are a new picture.
    data = (folder / "b.png").read_bytes()
    client.put_object(Bucket=bucket, Key="Trip 2026/ä+b/b.png", Body=data)
    client.put_object(
        Bucket=bucket, Key="Trip 2026/ä+b/a.jpg", Body=encode(astronaut, "JPEG", quality=50)
    )
    third = run_batch(where, out, model=model, faces=SURE, csv=True)
    assert (third.skipped, third.analysed) == (8, 1)
    names = open_output(out).names("parts")
    assert len([name for name in names if name.endswith(".csv")]) * 2 == len(names)
    kept = client.list_objects_v2(Bucket=bucket, Prefix="Results/")["Contents"]
    assert not [item["Key"] for item in kept if ".probe" in item["Key"]]


def test_shares_from_bucket_to_bucket(s3: Any, model: Path, folder: Path) -> None:
    bucket, client = s3.make_bucket("shares"), s3.client()
    for path in folder.glob("*.*"):
        client.put_object(Bucket=bucket, Key=f"in/{path.name}", Body=path.read_bytes())
    where, out = f"s3://{bucket}/in", f"s3://{bucket}/out"

    class Twice(HerePool):
        """Every share is done a second time, as after the loss of a worker that had written it."""

        def submit(self, job: ShareJob, share: Share, number: int) -> None:
            run_share(job, share)
            super().submit(job, share, number)

    summary = run_shares(where, out, pool=Twice(), model=model, share_bytes=1)
    assert (summary.analysed, summary.quarantined, summary.failed) == (4, 3, 0)
    rows = [row for row in rows_at(out) if not row["face"]]
    assert sorted(row["uri"] for row in rows) == [
        f"{where}/{name}" for name in ("a.jpg", "b.png", "e-wall.png", "f-dot.png")
    ]
    assert len(open_output(out).names("quarantine")) == 3
    assert run_batch(where, out, model=model).skipped == 7


def test_more_objects_than_one_page(s3: Any) -> None:
    bucket, client = s3.make_bucket("pages"), s3.client()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: client.put_object(
                    Bucket=bucket, Key=f"x/{number:04}.png", Body=b"p"
                ),
                range(1010),
            )
        )
    listed = [one.uri for one in open_inputs(f"s3://{bucket}/x").pictures()]
    assert listed == [f"s3://{bucket}/x/{number:04}.png" for number in range(1010)]


def test_one_object_is_an_input(s3: Any, model: Path, folder: Path, tmp_path: Path) -> None:
    bucket = s3.make_bucket("single")
    s3.client().put_object(Bucket=bucket, Key="a.jpg", Body=(folder / "a.jpg").read_bytes())
    summary = run_batch(f"s3://{bucket}/a.jpg", tmp_path / "out", model=model, faces=SURE)
    assert (summary.pictures, summary.faces) == (1, 1)


def test_an_object_replaced_after_listing_waits_for_the_next_run(s3: Any) -> None:
    bucket, client = s3.make_bucket("moving"), s3.client()
    client.put_object(Bucket=bucket, Key="a.png", Body=b"one")
    client.put_object(Bucket=bucket, Key="b.png", Body=b"one")
    inputs = open_inputs(f"s3://{bucket}")
    first, second = inputs.pictures()
    assert inputs.read(first) == b"one"
    client.put_object(Bucket=bucket, Key="a.png", Body=b"two")
    with pytest.raises(StoreError, match="replaced"):
        inputs.read(first)
    client.delete_object(Bucket=bucket, Key="b.png")
    with pytest.raises(StoreError, match="went away"):
        inputs.read(second)


def test_what_is_wrong_with_the_storage_is_said(
    s3: Any, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.make_bucket("errors")
    with pytest.raises(UsageError, match="holds no picture"):
        run_batch(f"s3://{bucket}/none", tmp_path / "out", model=model)
    with pytest.raises(StoreError, match="no bucket 'absent'"):
        run_batch("s3://absent/x", tmp_path / "out", model=model)
    with pytest.raises(StoreError, match="no bucket 'absent'"):
        run_batch(folder, "s3://absent/x", model=model)
    with pytest.raises(SettingsError, match="names no bucket"):
        run_batch(folder, "s3://", model=model)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="credentials"):
        run_batch(folder, f"s3://{bucket}/out", model=model)
    monkeypatch.setenv("FER_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        run_batch(folder, f"s3://{bucket}/out", model=model)


def test_a_bucket_keeps_what_is_saved(s3: Any) -> None:
    bucket = Bucket.from_url(f"s3://{s3.make_bucket('plain')}")
    assert isinstance(bucket, Bucket)
    bucket.save("A b/ü.bin", b"data", "application/octet-stream")
    assert bucket.fetch("A b/ü.bin") == b"data"
    bucket.remove("A b/ü.bin")
    bucket.remove("A b/ü.bin")
    assert list(bucket.objects("")) == []
