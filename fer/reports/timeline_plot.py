"""The plot of one person over time: who leads, seven probabilities, episodes, segments, gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fer.clock import clock
from fer.expressions import EXPRESSIONS, Expression
from fer.reports.plots import GRID, INK, MUTED, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fer.reports.seen import Person, Seen, Series
    from fer.reports.sums import Segment

COLUMNS: Final = 1200
"""Columns that a timeline is thinned to, about one a pixel: an hour has 90 times as many rows."""
_WIDTH: Final = 11.0  # inches
_HEIGHT: Final = 3.6
_COUNT: Final = len(EXPRESSIONS)
# Heights in lanes, one for each expression, from the top: the band of the leading expression,
# then the lanes, in which a probability of 1 is as high as _FULL.
_BAND: Final = 0.9
_GAP: Final = 0.35
_FULL: Final = 0.8
_STRIP: Final = 0.62  # of a segment's bar, above the band
_MOST_STRIPS: Final = 5
_LETTER: Final = 8.0  # columns that a letter of a label takes
_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_TICKS: Final = 9
_UNSEEN: Final = "#edf0f3"
CAPTION: Final = (
    "On top the leading expression, written out where there is room; below it the smoothed "
    "probability of each, from 0 to 1, lowest to highest where several frames share a pixel. Dark "
    "bars under a lane are episodes. Grey: the face was not seen."
)


def plot_timeline(
    person: Person, span: tuple[float, float], segments: Sequence[Segment], out: Path
) -> None:
    """Draw one participant of one video.

    Args:
        person: who.
        span: of the video that was analysed, s; equal for all its people, so that plots compare.
        segments: of the video, whose names and borders are drawn.
        out: PNG file.
    """
    begin, end = span
    edges = np.linspace(begin, end, COLUMNS + 1)
    strips = _strips(segments, begin, end)
    top = len(strips) * _STRIP
    figure = new_figure(_WIDTH, _HEIGHT + 0.22 * len(strips))
    axes = figure.add_subplot()
    _band(axes, led_by(person.seen, edges), edges, top)
    _lanes(axes, person, edges, top)
    _draw_segments(axes, strips, begin, end)
    _dress(axes, span, top)
    save_figure(figure, out)


def led_by(seen: Seen, edges: Series) -> NDArray[np.int64]:
    """The expression that leads for longest between neighbouring edges; -1 for a face not seen.

    Args:
        seen: one person's rows.
        edges: (m + 1,), ascending, s.

    Returns:
        (m,) indices.
    """
    seconds = np.diff(seen.until(edges)[:, :_COUNT], axis=0)
    return np.where(seconds.sum(axis=1) > 1e-9, seconds.argmax(axis=1), -1)


def runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """First place, place after the last, and value of each run of equal values."""
    borders = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for first, last in pairwise(borders):
        yield first, last, int(values[first])


def drawable(text: str) -> bool:
    """Whether the font of the plots has every letter."""
    characters = _characters()
    return all(ord(letter) in characters for letter in text)


@cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _base(lane: int) -> float:
    """Where a lane's probability of 0 lies, below the segments' strips."""
    return _BAND + _GAP + lane + _FULL


def _band(axes: Axes, led: NDArray[np.int64], edges: Series, top: float) -> None:
    """Who leads when, and grey through all lanes where nobody was seen."""
    ranges: dict[int, list[tuple[float, float]]] = {}
    for first, last, value in runs(led):
        begin, end = float(edges[first]), float(edges[last])
        ranges.setdefault(value, []).append((begin, end - begin))
        if value >= 0:
            _write_band(axes, Expression(value), (begin, end), last - first, top)
    for value, stretches in ranges.items():
        colour = Expression(value).colour if value >= 0 else _UNSEEN
        height = _BAND if value >= 0 else _base(_COUNT - 1) + 0.1
        axes.broken_barh(stretches, (top, height), color=colour, linewidth=0)


def _lanes(axes: Axes, person: Person, edges: Series, top: float) -> None:
    low, high = person.seen.extremes(edges)
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    there = ~np.isnan(low[:, 0])
    for expression in Expression:
        base = top + _base(expression)
        axes.hlines(base, edges[0], edges[-1], color=GRID, linewidth=0.8, zorder=1)
        # Upwards is towards smaller values.
        lowest, highest = (base - _FULL * one[:, expression] for one in (low, high))
        axes.fill_between(
            middles,
            base,
            highest,
            where=there.tolist(),
            step="mid",
            color=expression.colour,
            alpha=0.25,
            linewidth=0,
        )
        axes.fill_between(
            middles,
            lowest,
            highest,
            where=there.tolist(),
            step="mid",
            facecolor=expression.colour,
            edgecolor=expression.colour,
            linewidth=1.0,
        )
        bars = [
            (shown.episode.start, max(shown.seconds, width))
            for shown in person.episodes
            if shown.episode.expression == expression.label
        ]
        if bars:
            axes.broken_barh(bars, (base + 0.04, 0.11), color=INK, linewidth=0, zorder=3)


def _write_band(
    axes: Axes, expression: Expression, where: tuple[float, float], columns: int, top: float
) -> None:
    """The name of the leading expression, or its beginning, where that fits."""
    label = expression.label
    text = label if columns >= _LETTER * len(label) + 4 else label[:3]
    if columns < _LETTER * len(text) + 4:
        return
    axes.text(
        sum(where) / 2,
        top + _BAND / 2,
        text,
        ha="center",
        va="center",
        fontsize=8,
        color=_ink_on(expression.colour),
        fontweight="bold",
        zorder=4,
    )


def _ink_on(colour: str) -> str:
    """Dark or white, whichever is easier to read on a colour."""
    red, green, blue = ((int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (1, 3, 5))
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.24 else "white"


_Strip = list[tuple[float, float, int, str]]  # begin, end, number, name


def _strips(segments: Sequence[Segment], begin: float, end: float) -> list[_Strip]:
    """Stretches of segments inside the video, those that overlap one below another."""
    stretches = [
        (max(begin, start), min(end, stop), number, segment.name)
        for number, segment in enumerate(segments, start=1)
        for start, stop in segment.stretches
        if start < end and stop > begin
    ]
    strips: list[_Strip] = []
    for one in sorted(stretches):
        free = next((strip for strip in strips if strip[-1][1] <= one[0]), None)
        if free is not None:
            free.append(one)
        elif len(strips) < _MOST_STRIPS:
            strips.append([one])
    return strips


def _draw_segments(axes: Axes, strips: Sequence[_Strip], begin: float, end: float) -> None:
    bottom = len(strips) * _STRIP + _base(_COUNT - 1)
    for place, strip in enumerate(strips):
        y = place * _STRIP
        for start, stop, number, name in strip:
            axes.broken_barh(
                [(start, stop - start)],
                (y + 0.04, _STRIP - 0.12),
                facecolor="#dfe7ee",
                edgecolor="white",
                linewidth=1.2,
            )
            if text := _fitting(number, name, (stop - start) / (end - begin) * COLUMNS):
                axes.text(
                    (start + stop) / 2,
                    y + _STRIP / 2 - 0.02,
                    text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=INK,
                    parse_math=False,
                )
            for border in (start, stop):
                if begin < border < end:
                    axes.vlines(
                        border, y, bottom, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3))
                    )


def _fitting(number: int, name: str, columns: float) -> str:
    """A segment's number and name as far as there is room; the page lists both."""
    name = " ".join(name.split())
    text = f"{number} {name}" if drawable(name) else str(number)
    room = int((columns - 8) / _LETTER)
    if len(text) > room:
        text = f"{text[: room - 1]}…" if room > 4 and " " in text else str(number)
    return text if len(text) <= room else ""


def _dress(axes: Axes, span: tuple[float, float], top: float) -> None:
    from matplotlib.patches import Rectangle

    begin, end = span
    axes.set_xlim(begin, end)
    axes.set_ylim(top + _base(_COUNT - 1) + 0.25, 0)
    places = [top + _BAND / 2, *(top + _base(lane) - _FULL / 2 for lane in range(_COUNT))]
    axes.set_yticks(places, ["leading", *EXPRESSIONS])
    across = axes.get_yaxis_transform()
    for expression in Expression:
        axes.add_patch(
            Rectangle(
                (-0.008, top + _base(expression) - _FULL),
                0.004,
                _FULL,
                transform=across,
                color=expression.colour,
                clip_on=False,
                linewidth=0,
            )
        )
    ticks = _ticks(begin, end)
    axes.set_xticks(ticks, [clock(one) for one in ticks])
    axes.tick_params(axis="y", length=0, pad=10, colors=INK, labelsize=9)
    axes.tick_params(axis="x", length=3, colors=INK, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b8c1c9")


def _ticks(begin: float, end: float) -> list[float]:
    """Round times inside the range, at most some nine."""
    step = next((one for one in _STEPS if (end - begin) / one <= _TICKS), 0.0)
    step = step or 3600.0 * np.ceil((end - begin) / _TICKS / 3600)
    return [
        float(number * step)
        for number in range(int(np.ceil(begin / step - 1e-9)), int(end / step + 1e-9) + 1)
    ]
