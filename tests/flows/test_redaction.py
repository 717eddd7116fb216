"""No secret in what a run shows: artifacts, and what is said of a failure."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, Task, flow, task

from fer.errors import StoreError, WorkflowError
from flows import artifacts
from flows.redaction import MASK, redacted

SECRET = "wJalrXUtnFEMI-K7MDENG"
FLOWS = Path(__file__).parents[2] / "flows"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def raising(error: BaseException) -> Callable[[], None]:
    @redacted
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"{SECRET} is no number"),
        KeyError(SECRET),
        OSError(2, "No such file", f"folder/{SECRET}"),
        StoreError("http://me:sesame@s3/models is absent. Correct FER_REGISTRY."),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_error_keeps_its_type_and_loses_the_secret(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raising(error)()
    assert caught.value is error
    assert MASK in str(error)
    assert SECRET not in f"{error} {error!r}"
    assert "sesame" not in str(error)


def test_what_it_came_from_loses_the_secret_too() -> None:
    @redacted
    def fail() -> None:
        try:
            raise OSError(f"refused {SECRET}")
        except OSError as cause:
            raise StoreError("The bucket is absent.") from cause

    with pytest.raises(StoreError) as caught:
        fail()
    assert isinstance(caught.value.__cause__, OSError)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


class StubbornError(Exception):
    """Its text is not made of its arguments."""

    def __str__(self) -> str:
        return f"the key is {SECRET}"


def test_an_error_that_cannot_be_mended_is_replaced() -> None:
    with pytest.raises(WorkflowError, match="StubbornError: the key is") as caught:
        raising(StubbornError())()
    assert SECRET not in "".join(traceback.format_exception(caught.value))

    @redacted
    def fail() -> None:
        try:
            raise StubbornError
        except StubbornError as cause:
            raise StoreError("Absent.") from cause

    with pytest.raises(StoreError) as stored:
        fail()
    assert SECRET not in "".join(traceback.format_exception(stored.value))


@pytest.mark.usefixtures("server")
def test_a_state_and_a_log_that_tell_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    @task
    @redacted
    def inner(name: str) -> None:
        raise ValueError(f"{name} has the key {SECRET}")

    @flow
    @redacted
    def outer(name: str = "s3") -> None:
        inner(name)

    with caplog.at_level(logging.DEBUG):
        state: Any = outer(return_state=True)
    assert state.is_failed()
    assert state.message.endswith(f"ValueError: s3 has the key {MASK}")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", sorted(FLOWS.glob("*.py")), ids=lambda path: path.stem)
def test_every_flow_and_task_is_so(path: Path) -> None:
    module = importlib.import_module(f"flows.{path.stem}")
    bare = [
        name
        for name, one in vars(module).items()
        if isinstance(one, Flow | Task) and one.fn.__code__.co_name != "run"
    ]
    assert bare == []


def test_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    for kind in ("image", "link", "table", "markdown"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", lambda **what: shown.append(what))
    said = f"The key {SECRET} was refused."
    (tmp_path / "plot.png").write_bytes(b"png")
    artifacts.image("image", tmp_path / "plot.png", said)
    artifacts.link("link", tmp_path, said)
    artifacts.table("table", [{"reason": said}], said)
    artifacts.markdown("markdown", said, said)
    assert [one["key"] for one in shown] == ["image", "link", "table", "markdown"]
    assert {one["description"] for one in shown} == {f"The key {MASK} was refused."}
    assert SECRET not in str(shown)
