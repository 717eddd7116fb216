"""The plot of robustness.json: accuracy under each corruption beside the untouched one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.reports.plots import BLUE, INK, MUTED, ORANGE, dress, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.36
_GAP = 0.5
_LAST = 0.8
"""Accuracy up to which a label begins: about a fifth of the width holds one."""


def plot_robustness(found: Mapping[str, Any], out: Path) -> None:
    """One row per corruption: accuracy, its interval, and the points lost.

    Args:
        found: content of robustness.json.
        out: PNG file.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    conditions, untouched = found["conditions"], found["untouched"]["test"]
    places, heads = _places(conditions)
    bottom = places[-1] + 0.7
    figure = new_figure(9.0, _ROW * bottom + 1.5)
    axes = figure.add_subplot()
    dress(axes, title=f"Accuracy on {untouched['n']:,} test images made worse")
    axes.grid(axis="y", visible=False)
    axes.axvline(untouched["accuracy"], color=INK, linestyle=(0, (4, 3)), linewidth=1.1, zorder=3)
    for place, condition in zip(places, conditions, strict=True):
        _row(axes, place, condition)
    axes.set_yticks(places, [condition["level"] for condition in conditions])
    for place, kind in heads:
        axes.text(
            -0.02,
            place,
            kind,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=9.5,
            fontweight="bold",
            color=INK,
        )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom, heads[0][0] - 0.7)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(
        handles=[
            Patch(color=BLUE, label="all images, with interval"),
            Line2D([], [], color=ORANGE, marker="D", linestyle="", label="clean subset"),
            Line2D(
                [],
                [],
                color=INK,
                linestyle=(0, (4, 3)),
                label=f"untouched, all images: {untouched['accuracy']:.1%}",
            ),
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8.5,
    )
    save_figure(figure, out)


def _places(conditions: list[Mapping[str, Any]]) -> tuple[list[float], list[tuple[float, str]]]:
    """Height of each row from the top, and of the head above each kind's rows."""
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    at, kind = 0.0, None
    for condition in conditions:
        if condition["kind"] != kind:
            kind = condition["kind"]
            heads.append((at, kind))
            at += 1
        places.append(at)
        at += 1
        following = conditions[len(places)]["kind"] if len(places) < len(conditions) else kind
        at += _GAP if following != kind else 0
    return places, heads


def _row(axes: Axes, place: float, condition: Mapping[str, Any]) -> None:
    test, clean = condition["test"], condition["clean"]
    axes.barh(place, test["accuracy"], height=0.74, color=BLUE, alpha=0.85)
    axes.hlines(place, test["accuracy_low"], test["accuracy_high"], color=INK, linewidth=1.3)
    if clean["n"]:
        axes.plot(
            clean["accuracy"],
            place,
            marker="D",
            markersize=4.5,
            color=ORANGE,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=4,
        )
    points = test["difference"] * 100
    end = max(test["accuracy_high"], clean.get("accuracy", 0)) + 0.02
    # Where no room is left to the right of a row, its figures stand inside the bar.
    inside = end > _LAST
    start = min(test["accuracy_low"], clean.get("accuracy", 1)) - 0.02
    axes.text(
        start if inside else end,
        place,
        f"{test['accuracy']:.0%}  ({points:+.1f} points)",
        ha="right" if inside else "left",
        va="center",
        fontsize=8.5,
        color="white" if inside else INK if test["difference_high"] < 0 else MUTED,
    )
