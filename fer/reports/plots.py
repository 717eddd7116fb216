"""Plots of an evaluation as PNG files: confusion matrix, reliability, figures per class.

Matplotlib's object interface throughout: no global state, no display, safe in any thread. Equal
input gives equal bytes, which DVC and the model package rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.expressions import EXPRESSIONS, Expression
from fer.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fer.evaluation.calibration import Calibration, ReliabilityBin

INK: Final = "#22303c"
MUTED: Final = "#66737f"
GRID: Final = "#e3e8ec"
BLUE: Final = "#2f6690"
ORANGE: Final = "#d9742b"
RED: Final = "#b3333f"
_DPI: Final = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Write the figure as PNG, whole or not at all, without a date or version inside."""
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """The common look of an axes: quiet frame, light horizontal grid, title at the left."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8c1c9")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)


def plot_confusion(confusion: NDArray[np.int64], out: Path, title: str = "") -> None:
    """Confusion matrix: colour and large figure are the share of the actual class, small the count.

    Args:
        confusion: (7, 7) counts, row = actual, column = predicted.
        out: PNG file.
        title: above the matrix; a default states accuracy and images.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import PercentFormatter

    total, hits = int(confusion.sum()), int(np.trace(confusion))
    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    figure = new_figure(8.2, 7.2)
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("share", ["#f7fafc", "#a9c6dc", BLUE, "#16364f"])
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    count = len(EXPRESSIONS)
    for row in range(count):
        for column in range(count):
            dark = shares[row, column] > 0.45
            ink = "white" if dark else INK if confusion[row, column] else "#a3adb5"
            axes.text(
                column,
                row - 0.09,
                f"{shares[row, column]:.0%}",
                ha="center",
                va="center",
                color=ink,
                fontsize=12,
                fontweight="bold" if row == column else "normal",
            )
            axes.text(
                column,
                row + 0.24,
                f"{confusion[row, column]:,}",
                ha="center",
                va="center",
                color=ink,
                fontsize=8,
                alpha=0.85,
            )
    axes.set_xticks(range(count), EXPRESSIONS)
    axes.set_yticks(
        range(count),
        [f"{name}  {int(n):,}" for name, n in zip(EXPRESSIONS, support[:, 0], strict=True)],
    )
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=10)
    axes.tick_params(axis="y", pad=12)
    axes.tick_params(axis="x", pad=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for index, expression in enumerate(Expression):
        # A strip of the expression's colour beside each label, the same in every plot.
        for place in ((-0.6, index - 0.44, 0.07, 0.88), (index - 0.44, 6.53, 0.88, 0.07)):
            _strip(axes, place, expression.colour)
    axes.set_xlabel("predicted", fontsize=10.5, color=INK)
    axes.set_ylabel("actual (images)", fontsize=10.5, color=INK)
    axes.set_title(
        title or f"{hits:,} of {total:,} images right ({hits / max(total, 1):.1%})",
        loc="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
        pad=12,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.55, aspect=28, format=PercentFormatter(1.0))
    bar.set_label("share of the actual expression", fontsize=9, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=INK)
    save_figure(figure, out)


def _strip(axes: Axes, place: tuple[float, float, float, float], colour: str) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = place
    axes.add_patch(
        Rectangle((x, y), width, height, color=colour, clip_on=False, linewidth=0, zorder=5)
    )


def plot_reliability(
    before: Sequence[ReliabilityBin],
    after: Sequence[ReliabilityBin],
    out: Path,
    *,
    ece_before: float,
    ece_after: float,
    calibration: Calibration,
) -> None:
    """Reliability diagram: accuracy against confidence, before and after scaling.

    Args:
        before: bins of the probabilities as trained.
        after: bins after scaling.
        out: PNG file.
        ece_before: expected calibration error as trained.
        ece_after: the same after scaling.
        calibration: the scaling.
    """
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(9.6, 5.6)
    grid = figure.add_gridspec(2, 2, height_ratios=[4, 1])
    total = max(1, max(sum(one.count for one in bins) for bins in (before, after)))
    tallest = max(0.01, max(one.count for one in [*before, *after]) / total)
    parts = (
        (before, ece_before, "As trained", ORANGE),
        (after, ece_after, _scaling(calibration), BLUE),
    )
    for column, (bins, error, title, colour) in enumerate(parts):
        axes = figure.add_subplot(grid[0, column])
        dress(axes, title=title, y="accuracy" if column == 0 else "")
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        filled = [one for one in bins if one.count]
        centre = [(one.low + one.high) / 2 for one in filled]
        width = (bins[0].high - bins[0].low) * 0.92
        heights = [one.accuracy for one in filled]
        axes.bar(centre, heights, width=width, color=colour, alpha=0.85)
        # The gap itself: from what was true to what was said.
        axes.bar(
            centre,
            [one.confidence - one.accuracy for one in filled],
            bottom=heights,
            width=width,
            facecolor="none",
            edgecolor=RED,
            linewidth=0.9,
            hatch="////",
            alpha=0.55,
        )
        axes.text(
            0.03,
            0.95,
            f"calibration error {error:.1%}",
            transform=axes.transAxes,
            va="top",
            fontsize=11,
            fontweight="bold",
            color=INK,
        )
        axes.text(
            0.03,
            0.875,
            "dashed: perfectly calibrated\nhatched: the gap",
            transform=axes.transAxes,
            va="top",
            fontsize=8.5,
            color=MUTED,
            linespacing=1.4,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        below = figure.add_subplot(grid[1, column], sharex=axes)
        dress(below, x="confidence of the prediction", y="images" if column == 0 else "")
        below.bar(
            [(one.low + one.high) / 2 for one in bins],
            [one.count / total for one in bins],
            width=width,
            color=colour,
            alpha=0.5,
        )
        below.set_ylim(0, tallest * 1.08)
        below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        below.xaxis.set_major_formatter(PercentFormatter(1.0))
        below.tick_params(labelbottom=True)
        axes.tick_params(labelbottom=False)
    save_figure(figure, out)


def _scaling(calibration: Calibration) -> str:
    title = f"After scaling (temperature {calibration.temperature:.2f}"
    return title + (f", curvature {calibration.curvature:.2f})" if calibration.curvature else ")")


def plot_per_class(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Recall and precision of each class with their intervals, classes in index order.

    Args:
        rows: as `Evaluation.per_class` has them: expression, support, precision, recall, f1 and
            `<figure>_low`, `<figure>_high`.
        out: PNG file.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(9.0, 4.4)
    axes = figure.add_subplot()
    dress(axes, title="Recall and precision by expression")
    for index, row in enumerate(rows):
        colour = Expression[str(row["expression"]).upper()].colour
        for offset, name, alpha in ((-0.2, "recall", 1.0), (0.2, "precision", 0.45)):
            value = float(row[name])
            axes.bar(index + offset, value, width=0.37, color=colour, alpha=alpha)
            low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
            axes.vlines(index + offset, low, high, color=INK, linewidth=1.3)
            for end in (low, high):
                axes.hlines(end, index + offset - 0.05, index + offset + 0.05, color=INK, lw=1.3)
            axes.text(
                index + offset,
                high + 0.015,
                f"{value:.0%}",
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=INK,
            )
    axes.set_xticks(
        range(len(rows)), [f"{row['expression']}\n{int(row['support']):,} images" for row in rows]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(
        handles=[
            Patch(color=MUTED, label="recall: of this expression's images, found"),
            Patch(color=MUTED, alpha=0.45, label="precision: of these predictions, right"),
            Line2D([], [], color=INK, marker="_", label="confidence interval"),
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, -0.3),
        ncols=3,
        frameon=False,
        fontsize=8.5,
    )
    save_figure(figure, out)
