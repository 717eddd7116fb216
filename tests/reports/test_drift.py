"""The page and plot of a comparison, also of one with nothing in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer.expressions import EXPRESSIONS, Expression
from fer.monitoring.compare import Comparison, compare
from fer.monitoring.distribution import Distribution
from fer.monitoring.history import Analysis
from fer.monitoring.profile import VALUES, Profile
from fer.monitoring.watch import Drift
from fer.params import MonitoringParams
from fer.reports.drift import drift_report, plot_drift


def profile(title: str, faces: int, happy: int = 0, shift: float = 0.0) -> Profile:
    rng = np.random.default_rng(faces)
    counts = dict.fromkeys(EXPRESSIONS, (faces - happy) // 7)
    counts["happy"] += happy
    return Profile(
        title=title,
        expressions=counts,
        values={name: Distribution.of(rng.normal(shift, 1, faces)) for name in VALUES},
        pictures=faces,
        without_face=faces // 10,
        quarantined=0,
    )


def comparison(faces: int = 700) -> Comparison:
    usual = profile("the first faces <b>", 1400)
    return compare(usual, profile("now", faces, faces // 3, 0.8), MonitoringParams())


def drift(found: Comparison) -> Drift:
    one = Analysis("m<i>", 3, "d" * 64, "dlib-hog", "f" * 16)
    return Drift("file:///results", one, (), found)


def test_the_page_says_what_drifted(tmp_path: Path) -> None:
    found = comparison()
    page = drift_report(drift(found), tmp_path / "out").read_text(encoding="utf-8")
    assert found.verdict == "drift"
    assert page.count("<td>drift</td>") == len(found.drifted)
    assert "share of happy" in page
    assert "this is not accuracy" in page
    assert "m&lt;i&gt;:3" in page
    assert "the first faces &lt;b&gt;" in page
    assert "data:image/png;base64," in page


def test_a_window_without_a_face_has_a_page(tmp_path: Path) -> None:
    page = drift_report(drift(comparison(0)), tmp_path).read_text(encoding="utf-8")
    assert "Too few to tell: 0 faces" in page
    assert "<td>drift</td>" not in page


@pytest.mark.parametrize("faces", [700, 0])
def test_the_plot_has_every_expression_and_equal_bytes(tmp_path: Path, faces: int) -> None:
    import cv2

    found = comparison(faces)
    for name in ("one.png", "two.png"):
        plot_drift(found, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    image = cv2.imread(str(tmp_path / "one.png"))
    assert image is not None
    if faces:
        for expression in Expression:
            code = expression.colour
            wanted = np.array([int(code[at : at + 2], 16) for at in (5, 3, 1)])
            assert (np.abs(image.astype(int) - wanted).max(axis=2) <= 2).sum() > 50


def test_a_baseline_of_shares_alone_is_drawn(tmp_path: Path) -> None:
    usual = profile("reference.json", 1400)
    known = Profile("t", usual.expressions, {"confidence": usual.values["confidence"]})
    plot_drift(compare(known, profile("now", 700), MonitoringParams()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
