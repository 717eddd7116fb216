"""Results as batches write them, drawn from stated distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.expressions import EXPRESSIONS
from fer.inference.results import quarantine_schema, results_schema, to_parquet, to_table

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
USUAL = (0.12, 0.02, 0.10, 0.30, 0.14, 0.10, 0.22)


def write_day(
    root: Path,
    day: float,
    *,
    seed: int,
    pictures: int = 400,
    shares: Sequence[float] = USUAL,
    brightness: float = 125.0,
    size: float = 90.0,
    sure: float = 6.0,
    without: float = 0.10,
    refused: float = 0.02,
    model: str = "a",
    version: int | None = 1,
    faces_digest: str = "f" * 16,
    parts: int = 2,
) -> None:
    """Write one run's parts, `day` days after START: one face a picture, or none.

    `sure` is how far the logit of the expression shown lies above the others.
    """
    rng = np.random.default_rng(seed)
    base = {
        "media": "image",
        "width": 640,
        "height": 480,
        "frame": 0,
        "detector": "dlib-hog",
        "model_name": "m",
        "model_version": version,
    }
    for part in range(parts):
        when = START + timedelta(days=day, minutes=part)
        identity = {
            "etag": "1-1",
            "faces_digest": faces_digest,
            "model_digest": model * 64,
            "run_id": f"run-{model}-{day}",
            "analysed_at": when,
        }
        rows: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number in range(part * pictures // parts, (part + 1) * pictures // parts):
            one = identity | {"uri": f"file:///{model}/{day}/{number}.jpg"}
            if rng.random() < refused:
                bad.append(one | {"reason": "no picture"})
                continue
            row = one | base
            if rng.random() >= without:
                row |= _face(rng, shares, brightness, size, sure)
            rows.append(row)
        for folder, schema, table in (
            ("parts", results_schema(), rows),
            ("quarantine", quarantine_schema(), bad),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if table:
                path = root / folder / f"part-{model}{faces_digest[0]}-{day:08.2f}-{part}.parquet"
                path.write_bytes(to_parquet(to_table(table, schema)))


def _face(
    rng: np.random.Generator, shares: Sequence[float], brightness: float, size: float, sure: float
) -> dict[str, Any]:
    logits = rng.normal(0, 1, 7)
    logits[rng.choice(7, p=np.asarray(shares) / sum(shares))] += sure
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    best = int(scores.argmax())
    return {
        "face": 0,
        "detection_score": float(rng.normal(1.0, 0.5)),
        "quality_size": float(rng.lognormal(np.log(size), 0.4)),
        "quality_sharpness": float(rng.lognormal(7, 0.6)),
        "quality_brightness": float(rng.normal(brightness, 25)),
        "quality_marks": [],
        **{f"p_{name}": float(score) for name, score in zip(EXPRESSIONS, scores, strict=True)},
        "expression": EXPRESSIONS[best],
        "confidence": float(scores[best]),
    }


WriteDay = Callable[..., None]


@pytest.fixture(scope="session")
def write() -> WriteDay:
    """`write(root, day, seed=..., ...)`: one run's results; see `write_day`."""
    return write_day


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks of results from one population; tests copy it before they add to it."""
    root = tmp_path_factory.mktemp("usual")
    for day in range(0, 21, 3):
        write_day(root, day, seed=day)
    return root


@pytest.fixture
def results(usual: Path, tmp_path: Path) -> Path:
    """A copy of `usual` to write to."""
    import shutil

    return Path(shutil.copytree(usual, tmp_path / "results"))
