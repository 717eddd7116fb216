"""Flow batch-inference, on a real model reference and real pictures."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    SSLError,
)
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed

from fer.errors import (
    FerError,
    NotFoundError,
    SettingsError,
    StoreError,
    UnavailableError,
    UnsafeStoreError,
)
from fer.registry.registry import Registry
from fer.registry.s3_errors import explain
from flows.batch import batch_inference, storage_failed


@pytest.fixture
def registry(tmp_path: Path, put_package: Callable[..., None]) -> str:
    put_package(tmp_path, 0.7)
    models = Registry.open(str(tmp_path / "registry"))
    version = models.register(tmp_path / "models" / "package")
    models.promote(version.name, version.number)
    return models.url


@pytest.mark.usefixtures("server", "clean_environment")
class TestFlow:
    def test_results_then_nothing_left_to_do(
        self, photographs: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pyarrow.parquet as pq

        out = tmp_path / "out"
        monkeypatch.setenv("FER_BATCH_INPUT", str(photographs))
        monkeypatch.setenv("FER_REGISTRY", registry)
        state = batch_inference(output=str(out), project=tmp_path, return_state=True)
        summary = state.result()
        assert state.is_completed()
        assert (summary["analysed"], summary["quarantined"], summary["faces"]) == (1, 1, 1)
        assert "1 analysed with 1 faces" in (state.message or "")
        rows = pq.read_table(out / "parts").to_pylist()
        assert [(row["model_name"], row["model_version"]) for row in rows] == [
            ("fer2013-efficientnetb2", 1)
        ]
        again = batch_inference(output=str(out), project=tmp_path)
        assert (again["analysed"], again["skipped"]) == (0, 2)

    def test_missing_addresses_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="FER_BATCH_INPUT"):
            batch_inference(output=str(tmp_path))

    def test_parameters_out_of_range(self, tmp_path: Path) -> None:
        with pytest.raises(ParameterTypeError, match="part_size"):
            batch_inference(input="a", output=str(tmp_path), part_size=0)


def of_a_folder(number: int) -> StoreError:
    """What an output says of an error of its file system."""
    error = StoreError("The output cannot be used")
    error.__cause__ = OSError(number, "no")
    return error


def of_s3(cause: Exception) -> Exception:
    """What a bucket says of an error of boto3."""
    error = explain(cause, bucket="b", place="s3://b/k", doing="s3:PutObject", endpoint="http://h")
    error.__cause__ = cause
    return error


def answer(code: str, status: int) -> Exception:
    """An answer of an S3 server, as boto3 raises it."""
    document: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return of_s3(ClientError(document, "PutObject"))


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (UnavailableError("no answer"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (of_a_folder(errno.EIO), True),
        (of_a_folder(errno.ENOSPC), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (answer("SlowDown", 503), True),
        (of_s3(EndpointConnectionError(endpoint_url="http://h")), True),
        (answer("InvalidAccessKeyId", 403), False),
        (answer("NoSuchBucket", 404), False),
        (answer("AccessDenied", 403), False),
        (answer("ExpiredToken", 400), False),
        (of_s3(NoCredentialsError()), False),
        (of_s3(SSLError(endpoint_url="https://h", error="not trusted")), False),
        (StoreError("There is no registry"), False),
        (UnsafeStoreError("no hard links"), False),
        (NotFoundError("no alias"), False),
        (SettingsError("no registry"), False),
        (FerError("anything else"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_storage_is_tried_again(error: Exception, retried: bool) -> None:
    assert storage_failed(None, None, Failed(data=error)) is retried  # type: ignore[arg-type]


def test_a_timeout_is_not_tried_again() -> None:
    state = Failed(name="TimedOut", data=TimeoutError("too long"))
    assert not storage_failed(None, None, state)  # type: ignore[arg-type]
