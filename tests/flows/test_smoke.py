"""Flow batch-smoke: a registered model on drawn faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fer.errors import NotFoundError
from fer.registry.registry import Registry
from flows import events
from flows.smoke import batch_smoke, draw

pytestmark = pytest.mark.usefixtures("server", "clean_environment")


def test_a_model_is_pulled_and_tried(
    tmp_path: Path, put_package: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_emit", lambda *_: pytest.fail("a smoke run tells nobody"))
    put_package(tmp_path, 0.7)
    models = Registry.open(str(tmp_path / "registry"))
    version = models.register(tmp_path / "models" / "package")
    state = batch_smoke(
        model=str(version), registry=models.url, project=tmp_path, return_state=True
    )
    assert state.is_completed(), state.message
    found = state.result()
    assert (found["model_version"], found["pictures"], found["analysed"]) == (1, 7, 7)
    assert found["faces"] >= 5
    assert f"{version} found {found['faces']} faces in 7 of 7 pictures" in (state.message or "")
    assert not Path(found["output"]).exists()


def test_a_model_that_cannot_be_pulled_fails_the_run(tmp_path: Path) -> None:
    models = Registry.open(str(tmp_path / "registry"))
    models.initialize()  # a store that is not there would be tried again
    with pytest.raises(NotFoundError):
        batch_smoke(model="nothing:1", registry=models.url, project=tmp_path)


def test_the_pictures_are_always_the_same(tmp_path: Path) -> None:
    assert draw.fn(tmp_path / "a") == draw.fn(tmp_path / "b") == 7
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
