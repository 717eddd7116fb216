"""Flow monitor, on results as a batch writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import ParameterTypeError

from fer.errors import SettingsError, TableError
from fer.expressions import EXPRESSIONS
from fer.inference.results import results_schema, to_parquet, to_table
from flows.events import DRIFT_FOUND
from flows.monitoring import monitor

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def write_run(root: Path, day: int, *, brightness: float = 120.0, faces: int = 300) -> None:
    """One run's results: a face a picture, every expression as often."""
    rng = np.random.default_rng(day)
    rows: list[dict[str, Any]] = [
        {
            "uri": f"file:///{day}/{number}.jpg",
            "etag": "1-1",
            "media": "image",
            "width": 9,
            "height": 9,
            "frame": 0,
            "face": 0,
            "detection_score": float(rng.normal()),
            "quality_size": float(rng.normal(80, 9)),
            "quality_sharpness": float(rng.normal(900, 90)),
            "quality_brightness": float(rng.normal(brightness, 20)),
            **{
                f"p_{name}": 0.4 if index == number % 7 else 0.1
                for index, name in enumerate(EXPRESSIONS)
            },
            "expression": EXPRESSIONS[number % 7],
            "confidence": float(rng.uniform(0.3, 0.9)),
            "detector": "dlib-hog",
            "faces_digest": "f" * 16,
            "model_name": "fer2013-efficientnetb2",
            "model_version": 4,
            "model_digest": "d" * 64,
            "run_id": f"run-{day}",
            "analysed_at": START + timedelta(days=day),
        }
        for number in range(faces)
    ]
    (root / "parts").mkdir(parents=True, exist_ok=True)
    data = to_parquet(to_table(rows, results_schema()))
    (root / "parts" / f"part-{day:02}.parquet").write_bytes(data)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for day in range(6):
        write_run(tmp_path / "results", day)
    return tmp_path / "results"


def emitted() -> list[Any]:
    """Every drift that was told so far."""
    clients = AssertingEventsClient.all
    return [one for client in clients for one in client.events if one.event == DRIFT_FOUND]


@pytest.fixture
def told(clean_environment: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """`told()`: what this test has emitted, kept by Prefect's own client for tests."""
    EventsWorker.set_client_override(AssertingEventsClient)
    before = len(emitted())

    def wait() -> list[Any]:
        EventsWorker.instance().wait_until_empty()
        return emitted()[before:]

    yield wait
    EventsWorker.set_client_override(None)


def drift_table() -> list[dict[str, str]]:
    """The newest table that a run left in the UI."""
    import json

    with get_client(sync_client=True) as client:
        body = {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC", "limit": 1}
        (found,) = client.request("POST", "/artifacts/filter", json=body).json()
    rows: list[dict[str, str]] = json.loads(found["data"])
    return rows


@pytest.mark.usefixtures("server", "clean_environment")
class TestFlow:
    def test_steady_then_drift(
        self,
        results: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        told: Callable[[], list[Any]],
    ) -> None:
        monkeypatch.setenv("FER_BATCH_OUTPUT", str(results))
        state = monitor(project=tmp_path, return_state=True)
        assert (state.name, state.is_completed()) == ("Steady", True)
        assert state.result()["verdict"] == "steady"
        assert told() == []

        write_run(results, 30, brightness=70.0)
        state = monitor(project=tmp_path, return_state=True)
        assert (state.name, state.is_completed()) == ("Drift", True)
        assert (state.message or "").startswith("Drift: brightness")
        rows = {row["what"]: row for row in drift_table()}
        assert rows["brightness"]["verdict"] == "drift"
        assert rows["share of happy"]["verdict"] == "steady"
        (event,) = told()
        assert event.resource["fer.model.version"] == "4"
        assert event.resource.id == "fer.drift.fer2013-efficientnetb2"
        assert [line["name"] for line in event.payload["drifted"]] == ["brightness"]
        assert event.payload["faces"] == 300

    def test_few_faces_and_parameters(
        self, results: Path, checkout: Path, told: Callable[[], list[Any]]
    ) -> None:
        write_run(results, 30, brightness=70.0, faces=40)
        state = monitor(results=str(results), days=1, project=checkout, return_state=True)
        assert state.name == "TooFew"
        assert told() == []

    def test_wrong_addresses_and_parameters(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="FER_BATCH_OUTPUT"):
            monitor(project=tmp_path)
        with pytest.raises(TableError, match="no results"):
            monitor(results=str(tmp_path / "none"), project=tmp_path)
        for wrong in ({"days": 0}, {"runs": 0}, {"results": ""}):
            with pytest.raises(ParameterTypeError):
                monitor(project=tmp_path, **wrong)
