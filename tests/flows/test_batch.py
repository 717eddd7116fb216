"""Flow batch-inference, on a real model reference and real pictures."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed

from fer.errors import FerError, NotFoundError, SettingsError, StoreError, UnavailableError
from fer.registry.registry import Registry
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


def no_space() -> StoreError:
    error = StoreError("The output cannot be used: disk full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (UnavailableError("no answer"), True),
        (StoreError("20 pictures in a row could not be read"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (no_space(), False),
        (PermissionError(errno.EACCES, "denied"), False),
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
