"""The model card: what a model is for, what it was made of, how good it is, and its limits.

Follows Mitchell et al. 2019, "Model cards for model reporting".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fer.expressions import EXPRESSIONS
from fer.reports.html import render
from fer.reports.subsets import bounds, difference, headlines

# What Markdown would read as markup in a name that came from outside.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


def model_card(
    *,
    name: str,
    description: str,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    data: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
    per_class: Sequence[Mapping[str, Any]] = (),
    latency: Mapping[str, Any] | None = None,
    robustness: Mapping[str, Any] | None = None,
    classes: Sequence[str] = EXPRESSIONS,
) -> str:
    """The card as Markdown.

    Args:
        name: of the model in the registry.
        description: one sentence.
        metrics: content of the evaluation's metrics.json.
        lineage: where the model came from, as the package's manifest has it; nested mappings are
            listed with dotted names.
        data: manifest.json of the prepared table.
        source: source.json; a synthetic source is warned of.
        per_class: rows of per_class.csv (`fer.evaluation.report.read_per_class`); without them
            the table holds the F1 of metrics.json alone.
        latency: content of latency.json.
        robustness: content of robustness.json; without it the card says that it was not measured.
        classes: names in the order of the probabilities.
    """
    splits = data.get("splits", {})
    train = splits.get("train", {})
    return render(
        "card.md",
        name=name,
        description=description.strip(),
        metrics=metrics,
        test=metrics["test"],
        level=f"{metrics['confidence']:.0%}",
        figures=_figures(metrics),
        corruptions=_corruptions(robustness or {}),
        untouched=(robustness or {}).get("untouched", {}).get("test"),
        classes=list(classes),
        per_class=[_class_row(row) for row in per_class],
        f1=[(one, f"{value:.3f}") for one, value in metrics.get("f1", {}).items()],
        splits=[
            (one, part.get("images"), part.get("kept"), part.get("near_twins"))
            for one, part in splits.items()
        ],
        left_out=train.get("images", 0) - train.get("kept", 0),
        splits_rule=data.get("splits_rule", ""),
        clean_rule=data.get("clean_subset_rule", ""),
        synthetic=bool(source) and (source or {}).get("kind") == "synthetic",
        source=_plain(str((source or {}).get("kind", "not recorded"))),
        latency=latency,
        lineage=[(_plain(one), _plain(value)) for one, value in _flat(lineage)],
    )


def card_page(card: str) -> str:
    """A card as one HTML file: what the Markdown says, in the style of all pages.

    Args:
        card: what `model_card` gives; HTML in it is shown, not interpreted.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    title, _, rest = card.partition("\n")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(rest)
    name = _unmarked(title.removeprefix("# "))
    # The renderer has escaped whatever HTML came in.
    return render("card.html", title=name, lead="", footer="", card=Markup(body))  # noqa: S704


_TITLES: Final = {
    ("test", "accuracy"): "accuracy, all test images",
    ("clean", "accuracy"): "accuracy, clean subset",
    ("near_twins", "accuracy"): "accuracy, near copies of training images alone",
    ("test", "macro_f1"): "macro-F1, all test images",
    ("clean", "macro_f1"): "macro-F1, clean subset",
    ("ferplus", "agreement"): "agreement with the FER+ majority",
    ("ferplus_clean", "agreement"): "agreement with the FER+ majority, clean subset",
    ("test", "ece_before"): "calibration error as trained",
    ("test", "ece"): "calibration error after scaling",
    ("validation", "accuracy"): "accuracy, validation (chosen on)",
}


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(figure, value, interval, images) of every headline figure that was measured."""
    rows = [
        _figure(title, metrics[section], figure)
        for (section, figure), title in _TITLES.items()
        if figure in metrics.get(section, {})
    ]
    views = metrics.get("views", {})
    return rows + [
        _figure(f"{_TITLES[section, figure]}, mean of {views['count']} views", figures, figure)
        for section, figure, figures in headlines(views)
    ]


def _figure(title: str, figures: Mapping[str, Any], name: str) -> tuple[str, str, str, str]:
    return title, _percent(figures[name]), _bounds(figures, name), f"{figures['n']:,}"


def _corruptions(robustness: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(what was done, accuracy, its difference, the same on the clean subset)."""
    return [
        (f"{one['kind']}: {one['level']}", *_changed(one["test"]), *_changed(one["clean"]))
        for one in robustness.get("conditions", ())
    ]


def _changed(figures: Mapping[str, Any]) -> tuple[str, str]:
    """Accuracy, and the points by which it changed with their interval."""
    if not figures["n"]:
        return "-", "-"
    return _percent(figures["accuracy"]), difference(figures)


def _class_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [str(row["expression"]), f"{int(row['support']):,}"]
    figures = ("precision", "recall", "f1")
    return (*cells, *(f"{_percent(row[one])} ({_bounds(row, one)})" for one in figures))


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def _bounds(figures: Mapping[str, Any], name: str) -> str:
    if figures.get(f"{name}_low") is None or figures.get(f"{name}_high") is None:
        return "-"
    return bounds(figures, name)


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((f"{prefix}{name}", ", ".join(_item(one) for one in value)))
        elif isinstance(value, bool):
            rows.append((f"{prefix}{name}", "yes" if value else "no"))
        else:
            rows.append((f"{prefix}{name}", "-" if value is None else str(value)))
    return rows


def _item(value: Any) -> str:
    """One value of a list; a mapping as its names and values."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _unmarked(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
