"""Learning curves of a two-phase training, from its history.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer.errors import TableError
from fer.reports.plots import BLUE, INK, MUTED, ORANGE, RED, dress, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERS: Final = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
_PHASES: Final = {
    "head": ("head trains, backbone frozen", "head", "#e6efdf"),
    "finetune": ("everything trains", "all", "#f3f1f8"),
}


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    epoch: int
    phase: str
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


def read_history(path: Path) -> list[Epoch]:
    """The epochs of a history.csv, in order.

    Raises:
        TableError: absent, empty, or a column or number is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise TableError(f"{path} does not exist. Run `dvc repro train`.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} cannot be read as CSV: {error}.") from None
    if not rows:
        raise TableError(f"{path} has no epoch. Run `dvc repro train`.")
    epochs = []
    for line, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[name]) for name in _NUMBERS}
            epochs.append(Epoch(int(row["epoch"]), row["phase"], **values))
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(f"{path}, line {line}: no epoch of a training ({error}).") from None
    return epochs


def plot_curves(history: Path, out: Path, best_epoch: int, stopped_epoch: int | None) -> None:
    """Loss and accuracy by epoch, training beside validation, and the learning rate below.

    The phases are shaded, the epoch whose weights are kept is marked, and where early stopping
    struck, that is drawn too.

    Args:
        history: history.csv with epoch, phase ('head' or 'finetune'), loss, accuracy, val_loss,
            val_accuracy and learning_rate.
        out: PNG file.
        best_epoch: the epoch of the best validation accuracy, as the file numbers it.
        stopped_epoch: the epoch after which the rule ended training; None where it ran its length.

    Raises:
        TableError: the history cannot be read or has no such epoch.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = read_history(history)
    best = next((one for one in epochs if one.epoch == best_epoch), None)
    if best is None:
        raise TableError(f"{history} has no epoch {best_epoch}, said to be the best.")
    figure = new_figure(11, 6.4)
    grid = figure.add_gridspec(3, 2, height_ratios=[0.001, 4.2, 1])
    x = [one.epoch for one in epochs]
    panels = (
        ("Loss", [one.loss for one in epochs], [one.val_loss for one in epochs], best.val_loss),
        (
            "Accuracy",
            [one.accuracy for one in epochs],
            [one.val_accuracy for one in epochs],
            best.val_accuracy,
        ),
    )
    marker = "o" if len(epochs) <= 40 else None
    for column, (title, training, validation, at_best) in enumerate(panels):
        axes = figure.add_subplot(grid[1, column])
        dress(axes, title=title)
        _shade(axes, epochs, named=True)
        style = {"linewidth": 1.9, "marker": marker, "markersize": 3.8}
        axes.plot(x, training, color=ORANGE, label="training", **style)  # type: ignore[arg-type]
        axes.plot(x, validation, color=BLUE, label="validation", **style)  # type: ignore[arg-type]
        axes.axvline(best_epoch, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            [best_epoch],
            [at_best],
            marker="*",
            markersize=15,
            color=BLUE,
            markeredgecolor="white",
            linestyle="none",
            zorder=6,
        )
        if stopped_epoch is not None:
            axes.axvline(stopped_epoch, color=RED, linewidth=1.3)
        value = f"{at_best:.1%}" if column else f"{at_best:.3f}"
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.01, 0.985),
            ncols=2,
            frameon=False,
            fontsize=9.5,
            columnspacing=1.4,
        )
        axes.annotate(
            value,
            (best_epoch, at_best),
            textcoords="offset points",
            xytext=(0, 11 if column else -17),
            ha="center",
            fontsize=9.5,
            fontweight="bold",
            color=BLUE,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.2},
            zorder=7,
        )
        if column:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)
        _room(axes, above=0.12, below=0.07)
        rate = figure.add_subplot(grid[2, column], sharex=axes)
        dress(rate, x="epoch", y="learning rate")
        _shade(rate, epochs, named=False)
        for phase in dict.fromkeys(one.phase for one in epochs):
            part = [one for one in epochs if one.phase == phase]
            rate.plot(
                [one.epoch for one in part],
                [one.learning_rate for one in part],
                color=MUTED,
                linewidth=1.5,
                marker=marker,
                markersize=2.5,
            )
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        rate.yaxis.get_offset_text().set_fontsize(8)
        axes.tick_params(labelbottom=False)
    text = f"best validation accuracy: epoch {best_epoch}; these weights are kept"
    figure.suptitle("★ " + text, x=0.012, ha="left", fontsize=12, color=INK, fontweight="bold")
    if stopped_epoch is not None:
        waited = stopped_epoch - best_epoch
        words = f"{waited} epoch{'s' if waited != 1 else ''} without a better one"
        ended = f"stopped after epoch {stopped_epoch}: {words} (red line)"
        colour = RED
    else:
        ended, colour = f"ran all its {len(epochs)} epochs; the rule did not strike", MUTED
    figure.text(0.988, 0.98, ended, ha="right", va="top", fontsize=10, color=colour)
    save_figure(figure, out)


def _shade(axes: Axes, epochs: list[Epoch], *, named: bool) -> None:
    """Colour the stretch of each phase, and name it at the top."""
    start = 0
    for index in range(1, len(epochs) + 1):
        if index < len(epochs) and epochs[index].phase == epochs[start].phase:
            continue
        first, last = epochs[start].epoch - 0.5, epochs[index - 1].epoch + 0.5
        phase = epochs[start].phase
        name, short, colour = _PHASES.get(phase, (phase, phase, "#f2f2f2"))
        axes.axvspan(first, last, color=colour, linewidth=0, zorder=0)
        if named:
            # A narrow band has no room for the whole name: begin at its left edge.
            narrow = last - first < 0.4 * len(epochs)
            axes.annotate(
                short if narrow else name,
                (first if narrow else (first + last) / 2, 1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                xytext=(4 if narrow else 0, -5),
                ha="left" if narrow else "center",
                va="top",
                fontsize=8.5,
                color=MUTED,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
                zorder=4,
            )
        start = index


def _room(axes: Axes, *, above: float, below: float) -> None:
    """Leave room over and under the curves for the labels."""
    low, high = axes.get_ylim()
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    height = high - low
    axes.set_ylim(low - below * height, high + above * height)
