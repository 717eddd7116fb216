"""Timelines: thinned to pixels, every expression named and coloured, gaps and episodes drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from analyses import showing
from matplotlib.figure import Figure

from fer.expressions import EXPRESSIONS, Expression
from fer.inference.timeline import Timeline
from fer.params import TimelineParams
from fer.reports import timeline_plot
from fer.reports.plots import INK
from fer.reports.seen import Frames, Person
from fer.reports.sums import Segment
from fer.reports.timeline_plot import COLUMNS, drawable, led_by, plot_timeline, runs

HAPPY, SAD = EXPRESSIONS.index("happy"), EXPRESSIONS.index("sad")
ALL = showing(*((name, 20) for name in EXPRESSIONS))


def person(times: np.ndarray, rows: np.ndarray, values: np.ndarray) -> Person:
    frames = Frames(np.arange(len(times)), times)
    track = Timeline(0, times[rows], rows.astype(np.int32), values.astype(np.float32))
    return Person.of("v #0", [track], frames, TimelineParams(smoothing=0))


@pytest.fixture
def everything() -> Person:
    """All seven expressions, 2 s each, and 6 s without the face in the middle."""
    return person(np.arange(200) / 10, np.r_[0:70, 130:200], ALL)


def pixels(path: Path) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path))
    assert image is not None
    return image.astype(int)


def near(image: np.ndarray, colour: str) -> int:
    wanted = np.array([int(colour[at : at + 2], 16) for at in (5, 3, 1)])
    return int((np.abs(image - wanted).max(axis=2) <= 2).sum())


def test_every_expression_has_its_colour_and_equal_bytes(
    tmp_path: Path, everything: Person
) -> None:
    for name in ("one.png", "two.png"):
        plot_timeline(everything, (0.0, 20.0), (), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    image = pixels(tmp_path / "one.png")
    for expression in Expression:
        assert near(image, expression.colour) > 500, expression
    # The gap is grey: 6 of 20 s, all lanes high.
    assert near(image, "#edf0f3") > 0.2 * image.shape[0] * image.shape[1]


def test_nobody_needs_colours_to_read_it(
    tmp_path: Path, everything: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(timeline_plot, "save_figure", lambda figure, _: drawn.append(figure))
    segments = [Segment("ad", ((0.0, 5.0),)), Segment("Stück 2", ((4.0, 15.0),))]
    plot_timeline(everything, (0.0, 20.0), segments, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    lanes = [label.get_text() for label in axes.get_yticklabels()]
    assert lanes == ["leading", *EXPRESSIONS]
    texts = [text.get_text() for text in axes.texts]
    assert set(EXPRESSIONS) <= set(texts)
    assert {"1 ad", "2 Stück 2"} <= set(texts)
    times = [label.get_text() for label in axes.get_xticklabels()]
    assert times[:3] == ["0:00:00.0", "0:00:05.0", "0:00:10.0"]


def test_episodes_are_bars(tmp_path: Path) -> None:
    times = np.arange(100) / 10
    counts = []
    for value in (0.88, 0.3):  # which is no episode
        one = person(times, np.arange(100), showing(("happy", 100, value)))
        plot_timeline(one, (0.0, 10.0), (), tmp_path / "a.png")
        counts.append(near(pixels(tmp_path / "a.png"), INK))
    assert counts[0] > counts[1] + 1500


def test_an_hour_is_thinned_and_keeps_its_peaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 108_000
    times = np.arange(rows) / 30
    values = np.tile(showing(("neutral", 1)), (rows, 1))
    values[50_000] = showing(("happy", 1, 0.97))[0]
    one = person(times, np.arange(rows), values)
    edges = np.linspace(0, 3600, COLUMNS + 1)
    _, high = one.seen.extremes(edges)
    assert high[:, HAPPY].max() == pytest.approx(0.97)
    assert (high[:, HAPPY] > 0.5).sum() == 1
    drawn: list[Figure] = []
    monkeypatch.setattr(timeline_plot, "save_figure", lambda figure, _: drawn.append(figure))
    plot_timeline(one, (0.0, 3600.0), (), tmp_path / "a.png")
    (axes,) = drawn[0].axes
    points = sum(len(path.vertices) for shape in axes.collections for path in shape.get_paths())
    assert points < 7 * 2 * 6 * COLUMNS < rows * 7


def test_the_band_shows_who_leads_longest_in_a_pixel() -> None:
    one = person(np.arange(12) / 10, np.arange(10), showing(("happy", 4), ("sad", 6)))
    led = led_by(one.seen, np.linspace(0, 1.2, 3))
    assert led.tolist() == [HAPPY, SAD]
    assert led_by(one.seen, np.array([0.0, 1.0, 1.1, 1.2])).tolist() == [SAD, -1, -1]
    assert list(runs(np.array([2, 2, 5, 2]))) == [(0, 2, 2), (2, 3, 5), (3, 4, 2)]


@pytest.mark.filterwarnings("error")
def test_any_name_of_a_segment_and_any_span_can_be_drawn(
    tmp_path: Path, everything: Person
) -> None:
    names = ["$x_{", "広告", "a\nb", "<b>", "\x07", "a very long name of a very short segment"]
    segments = [
        Segment(name, ((float(place), place + 7.0), (18.0, 18.01)))
        for place, name in enumerate(names)
    ]
    assert not drawable("広告")
    assert drawable("Stück")
    plot_timeline(everything, (0.0, 20.0), segments, tmp_path / "a.png")
    alone = person(np.array([3.0]), np.array([0]), showing(("fear", 1)))
    plot_timeline(alone, (3.0, 3.04), segments[:1], tmp_path / "b.png")
    plot_timeline(everything, (0.0, 200_000.0), (), tmp_path / "c.png")
    assert near(pixels(tmp_path / "b.png"), Expression.FEAR.colour) > 500
