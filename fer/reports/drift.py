"""The page of a comparison over time: verdict, figures line by line, and a plot of both windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fer.expressions import EXPRESSIONS, Expression
from fer.files import write_json
from fer.reports.html import Fact, Image, Link, Section, Table
from fer.reports.pages import render_summary
from fer.reports.plots import BLUE, INK, MUTED, ORANGE, RED, dress, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fer.monitoring.compare import Comparison, Line
    from fer.monitoring.distribution import Distribution
    from fer.monitoring.profile import Profile
    from fer.monitoring.watch import Drift

_STEPS: Final = 2000
_MEANING: Final = (
    "Compared are predictions, faces and pictures, not answers with the truth: there are no "
    "labels here, so this is not accuracy. Drift says that what comes in, or what the model makes "
    "of it, is no longer what it was. That may be another camera, other people, another mood, or "
    "a model that fails; a steady result does not exclude the last.\n\n"
    "A line has drifted where its effect reaches the threshold and chance alone would hardly "
    "reach it. PSI is the population stability index of the seven shares, Cohen's h the distance "
    "of two shares, KS the largest gap between two cumulative distributions."
)


def drift_report(found: Drift, out: Path) -> Path:
    """Write `out/index.html`, `out/drift.png` and `out/drift.json`.

    Args:
        found: a comparison of results with their baseline.
        out: the report's folder.

    Returns:
        The page's path.
    """
    comparison = found.comparison
    plot_drift(comparison, out / "drift.png")
    write_json(out / "drift.json", found.document())
    words = {"drift": "Drift", "steady": "Steady"}
    sections = [
        Section(
            "Verdict",
            text=comparison.text,
            facts=[
                Fact(
                    words.get(comparison.verdict, "Too few"),
                    f"{len(comparison.drifted)} of {len(comparison.lines)} lines drifted",
                ),
                *(_fact(one, name) for one, name in _windows(comparison)),
            ],
        ),
        Section(
            "Both windows",
            images=[
                Image(
                    out / "drift.png",
                    "Shares of the expressions and distributions of every watched value, "
                    "baseline beside now",
                    "Names of what drifted are red.",
                )
            ],
        ),
        Section("Line by line", table=_table(comparison)),
        Section("What this says", text=_MEANING),
        Section("Files", links=[Link("drift.json: every figure of this page", "drift.json")]),
    ]
    lead = f"{found.results}, analysed by {found.analysis}; faces by {found.analysis.detector}."
    return render_summary(out / "index.html", sections, title="Drift of predictions", lead=lead)


def plot_drift(comparison: Comparison, out: Path) -> None:
    """Shares of the expressions, and the cumulative distribution of every watched value.

    Args:
        comparison: with any verdict; a window may be empty.
        out: PNG file.
    """
    figure = new_figure(11, 8.2)
    grid = figure.add_gridspec(3, 3, height_ratios=[1.25, 1, 1])
    lines = {line.name: line for line in comparison.lines}
    _expressions(figure.add_subplot(grid[0, :]), comparison, lines)
    names = list(comparison.baseline.values)
    for index in range(6):
        axes = figure.add_subplot(grid[1 + index // 3, index % 3])
        if index >= len(names):
            axes.set_visible(False)
            continue
        name = names[index]
        _distributions(
            axes,
            lines.get(name.replace("_", " ")),
            name.replace("_", " "),
            comparison.baseline.values[name],
            comparison.now.values[name],
        )
    save_figure(figure, out)


def _expressions(axes: Axes, comparison: Comparison, lines: dict[str, Line]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    whole = lines["expressions"]
    effect = "too few to tell" if whole.effect is None else f"PSI {whole.effect:.3f}"
    dress(axes, title=f"Share of each expression ({effect})")
    for index, expression in enumerate(Expression):
        line = lines[f"share of {expression.label}"]
        for offset, value, alpha in ((-0.2, line.baseline, 0.4), (0.2, line.now, 1.0)):
            if value is None:
                continue
            axes.bar(index + offset, value, width=0.37, color=expression.colour, alpha=alpha)
            axes.text(index + offset, value, f"{value:.0%}", ha="center", va="bottom", fontsize=8.5)
    axes.set_xticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    for label in axes.get_xticklabels():
        if lines[f"share of {label.get_text()}"].verdict == "drift":
            label.set(color=RED, fontweight="bold")
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(
        handles=[
            Patch(color=MUTED, alpha=0.4, label=f"baseline: {comparison.baseline.faces:,} faces"),
            Patch(color=MUTED, label=f"now: {comparison.now.faces:,} faces"),
            Line2D([], [], color=BLUE, label="below, share of faces up to a value: baseline"),
            Line2D([], [], color=ORANGE, label="now"),
        ],
        loc="lower right",
        bbox_to_anchor=(1.0, 0.99),
        ncols=4,
        columnspacing=1.2,
        frameon=False,
        fontsize=9,
    )


def _distributions(
    axes: Axes, line: Line | None, name: str, baseline: Distribution, now: Distribution
) -> None:
    drifted = line is not None and line.verdict == "drift"
    effect = "" if line is None or line.effect is None else f"  KS {line.effect:.2f}"
    dress(axes)
    colour = RED if drifted else INK
    axes.set_title(name + effect, loc="left", fontsize=11, color=colour, fontweight="bold", pad=10)
    for distribution, line_colour in ((baseline, BLUE), (now, ORANGE)):
        count = len(distribution.values)
        if count:
            # A million steps take seconds to draw and look the same.
            shown = np.unique(np.linspace(0, count - 1, _STEPS).astype(int))
            heights = (shown + 1) / count
            axes.step(
                distribution.values[shown], heights, where="post", color=line_colour, linewidth=1.6
            )
    axes.set_ylim(0, 1.03)


def _table(comparison: Comparison) -> Table:
    from fer.monitoring.compare import shown

    rows: list[list[object]] = []
    for line in comparison.lines:
        chance = "-"
        if line.probability is not None:
            chance = "< 0.0001" if line.probability < 1e-4 else f"{line.probability:.2g}"
        rows.append(
            [
                line.name,
                line.meaning,
                shown(line, line.baseline),
                shown(line, line.now),
                line.statistic,
                "-" if line.effect is None else f"{line.effect:.3f}",
                f"{line.threshold:g}",
                chance,
                f"{line.count_baseline:,} / {line.count_now:,}",
                line.verdict,
            ]
        )
    columns = ["", "what", "baseline", "now", "statistic", "effect", "threshold", "by chance", "n"]
    return Table([*columns, "verdict"], rows)


def _windows(comparison: Comparison) -> list[tuple[Profile, str]]:
    return [(comparison.baseline, "faces in the baseline"), (comparison.now, "faces now")]


def _fact(profile: Profile, name: str) -> Fact:
    text = profile.title
    if profile.since and profile.until:
        text += f"; {profile.since:%Y-%m-%d %H:%M} to {profile.until:%Y-%m-%d %H:%M} UTC"
    return Fact(f"{profile.faces:,}", name, text)
