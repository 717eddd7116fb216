"""The page of an evaluation: headline figures, what each means, and every plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.evaluation.metrics import confusions
from fer.expressions import Expression
from fer.files import write_text
from fer.reports.html import Bar, Fact, Image, Link, Section, Table, percent, render
from fer.reports.subsets import bounds, difference, headlines

if TYPE_CHECKING:
    from fer.evaluation.evaluate import Evaluation

_FILES: Final = {
    "metrics.json": "every figure of this page",
    "per_class.csv": "precision, recall and F1 of each expression with bounds",
    "confusion.csv": "actual and predicted expression of each test image",
    "reliability.csv": "confidence and accuracy by bin",
    "robustness.json": "accuracy under each corruption, with bounds",
    "predictions.parquet": "seven probabilities of each validation and test image, no pixels",
    "latency.json": "speed on the machine that made this page",
}


def evaluation_page(
    found: Evaluation, latency: Mapping[str, Any], manifest: Mapping[str, Any], out: Path
) -> Path:
    """Write `out/index.html`; the PNG files of the report must be in `out` already.

    Args:
        found: the evaluation.
        latency: content of latency.json.
        manifest: of the prepared table, for the rule of the clean subset; may be empty.
        out: the report's folder.

    Returns:
        The page's path.
    """
    metrics = found.metrics
    test = metrics["test"]
    page = render(
        "page.html",
        title=f"Evaluation: {percent(test['accuracy'])} of {test['n']:,} test images right",
        lead=(
            "Measured on the test split, which nothing was chosen on. Ranges are "
            f"{metrics['confidence']:.0%} confidence intervals."
        ),
        sections=[
            Section("Headline figures", facts=_headlines(found, latency)),
            _subsets(metrics, manifest),
            _classes(found),
            Section(
                "Which expressions are taken for which",
                text=_mistakes(found),
                images=[
                    Image(
                        out / "confusion.png",
                        "Confusion matrix: actual expressions in rows, predicted in columns",
                        "Rows are what the label says, columns what the model says. The large "
                        "figure is the share of the row, the small one the number of images.",
                    )
                ],
            ),
            _calibration(found, out),
            *([_robustness(found, out)] if found.robustness else []),
            _method(metrics),
            Section(
                "Files",
                links=[
                    Link(f"{name}: {what}", name)
                    for name, what in _FILES.items()
                    if found.robustness or name != "robustness.json"
                ],
            ),
        ],
        footer=(
            "An expression is not an emotion: the model says how a face looks to a labeller, "
            "not what a person feels."
        ),
    )
    path = out / "index.html"
    write_text(path, page)
    return path


def span(figures: Mapping[str, Any], name: str) -> str:
    """The bounds of a figure as text: '63.9 to 67.0 %'."""
    return f"{bounds(figures, name)}\u00a0%"


def _headlines(found: Evaluation, latency: Mapping[str, Any]) -> list[Fact]:
    metrics = found.metrics
    test, clean = metrics["test"], metrics["clean"]
    common = max(found.per_class, key=lambda row: row["support"])
    constant = percent(common["support"] / test["n"])
    facts = [
        Fact(
            percent(test["accuracy"]),
            "accuracy, all test images",
            f"{span(test, 'accuracy')}; calling every face {common['expression']} gives {constant}",
        ),
        Fact(
            percent(test["macro_f1"]),
            "macro-F1",
            f"{span(test, 'macro_f1')}; every expression counts the same, however rare",
        ),
        Fact(
            percent(test["ece"]),
            "calibration error",
            f"{span(test, 'ece')}; it was {percent(test['ece_before'])} before scaling",
        ),
        Fact(
            f"{latency['batch_1_p50_ms']:.1f} ms",
            "one face, median",
            f"95 in 100 within {latency['batch_1_p95_ms']:.1f} ms; in batches "
            f"{latency['batch_32_images_per_second']:,.0f} images/s",
        ),
        Fact(f"{metrics['model_bytes'] / 1e6:.1f} MB", "the model's file")
        if "model_bytes" in metrics
        else None,
    ]
    if clean["n"]:
        facts.insert(
            1,
            Fact(
                percent(clean["accuracy"]),
                "accuracy, clean subset",
                f"{span(clean, 'accuracy')}; without near copies of training images",
            ),
        )
    if metrics.get("ferplus", {}).get("n"):
        votes = metrics["ferplus"]
        facts.insert(
            3,
            Fact(
                percent(votes["agreement"]),
                "agreement with FER+",
                f"{span(votes, 'agreement')}; with the majority of ten annotators. The dataset's "
                f"own label agrees on {percent(votes['label_agreement'])}",
            ),
        )
    return [fact for fact in facts if fact is not None]


def _subsets(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> Section:
    parts = (
        ("test", "all test images", "accuracy", "against the dataset's label"),
        ("clean", "clean subset", "accuracy", "no near copy in the source's training images"),
        ("near_twins", "near copies alone", "accuracy", "what the clean subset leaves out"),
        ("ferplus", "all, FER+ majority", "agreement", "where ten annotators have a clear winner"),
        ("ferplus_clean", "clean, FER+ majority", "agreement", "the same on the clean subset"),
        ("validation", "validation images", "accuracy", "model and scaling were chosen here"),
    )
    rows: list[list[object]] = []
    for key, name, figure, what in parts:
        figures = metrics.get(key)
        if figures is None:
            continue
        if figures["n"]:
            shown: list[object] = [percent(figures[figure]), span(figures, figure)]
        else:
            shown = ["-", "-"]
        rows.append([name, int(figures["n"]), *shown, what])
    rows += _views(metrics, {key: name for key, name, *_ in parts})
    text = (
        "The dataset repeats images across its splits. A model can know such a test image by "
        "heart, so the figure for the clean subset is the one to expect on new faces."
    )
    if rule := manifest.get("clean_subset_rule"):
        text += f" The clean subset is: {rule}."
    return Section(
        "What the figure is measured on",
        text=text,
        table=Table(["images", "n", "right", "interval", "meaning"], rows),
    )


def _views(metrics: Mapping[str, Any], names: Mapping[str, str]) -> list[list[object]]:
    """The same subsets by the mean of several views, apart from the single one's figures."""
    views = metrics.get("views", {})
    return [
        [
            f"{names[section]}, mean of {views['count']} views",
            int(figures["n"]),
            percent(figures[figure]),
            span(figures, figure),
            f"{difference(figures, ' points')} from the single view",
        ]
        for section, figure, figures in headlines(views)
    ]


def _classes(found: Evaluation) -> Section:
    rows: list[list[object]] = [
        [
            row["expression"],
            int(row["support"]),
            Bar(row["recall"], percent(row["recall"]), _colour(row)),
            span(row, "recall"),
            Bar(row["precision"], percent(row["precision"]), _colour(row)),
            span(row, "precision"),
            percent(row["f1"]),
            span(row, "f1"),
        ]
        for row in found.per_class
    ]
    return Section(
        "Each expression",
        text=(
            "Recall: of the images that carry this label, how many were found. Precision: of the "
            "images given this label, how many carry it. F1 is the harmonic mean of both. A rare "
            "expression has a wide interval."
        ),
        table=Table(
            ["expression", "n", "recall", "", "precision", "", "F1", ""],
            rows,
        ),
    )


def _calibration(found: Evaluation, out: Path) -> Section:
    test = found.metrics["test"]
    calibration = found.calibration
    if round(calibration.temperature, 3) == 1:
        side = "which changes nothing"
    elif calibration.temperature > 1:
        side = "more than 1: doubtful predictions were surer than they should be"
    else:
        side = "less than 1: doubtful predictions were less sure than they should be"
    numbers = f"Its logits are divided by a temperature of {calibration.temperature:.3f}, {side}. "
    if calibration.curvature:
        numbers += (
            f"A curvature of {calibration.curvature:.3f} times the squared distance below the "
            "highest logit is taken off, so that sure predictions become surer. "
        )
    return Section(
        "Do the probabilities mean what they say?",
        text=(
            f"The model is scaled by what was fitted on validation. {numbers}"
            "Scaling changes no prediction, only how sure it is said to be. The calibration error "
            "is the mean distance between what was said and what was true: "
            f"{percent(test['ece_before'])} before, {percent(test['ece'])} after."
        ),
        images=[
            Image(
                out / "reliability.png",
                "Reliability diagram before and after scaling",
                "Each bar holds the predictions of one range of confidence; its height is the "
                "share of them that were right. On the dashed line both are equal.",
            ),
        ],
    )


def _robustness(found: Evaluation, out: Path) -> Section:
    measured = found.robustness
    rows: list[list[object]] = [
        [
            f"{one['kind']}: {one['level']}",
            percent(one["test"]["accuracy"]),
            difference(one["test"], " points"),
            *(
                [percent(one["clean"]["accuracy"]), difference(one["clean"], " points")]
                if one["clean"]["n"]
                else ["-", "-"]
            ),
        ]
        for one in measured["conditions"]
    ]
    whole, part = found.metrics["test"]["n"], measured["untouched"]["test"]["n"]
    which = "All test images" if part == whole else f"{part:,} of the {whole:,} test images"
    return Section(
        "When pictures are worse, or crops elsewhere",
        text=(
            f"{which} were changed and classified again; expressions and near copies have the "
            "same shares among them as in the whole. A difference is that from the same images "
            "untouched. Lengths are those of 48-pixel faces; shifted and reduced faces are filled "
            "up at the border by reflection, where a detector's crop would show what is there.\n\n"
            "Colour is not among them: a picture is made grey before the model sees it."
        ),
        images=[
            Image(
                out / "robustness.png",
                "Accuracy under each corruption beside the untouched accuracy",
                "Bars are accuracy on all images with their intervals, diamonds the clean "
                "subset's; the dashed line is the accuracy on the same images untouched.",
            )
        ],
        table=Table(["", "all", "difference", "clean subset", "difference"], rows),
    )


def _method(metrics: Mapping[str, Any]) -> Section:
    return Section(
        "How it was measured",
        text=(
            "One view of each image, no ensemble, except where views are named; the exported "
            "model that is served, not the training graph.\n\n"
            "Intervals of shares are Wilson's; those of F1 and of the calibration error are "
            "bootstraps over the images with a fixed seed. They say what another draw of test "
            "images would do to the figure, not what another training seed would.\n\n"
            f"Test set {metrics['test_set']} (digest of its images and labels): figures compare "
            "only where it is the same."
        ),
        open=False,
    )


def _mistakes(found: Evaluation) -> str:
    common = confusions(found.confusion)
    if not common:
        return "No image of the test split was mistaken."
    parts = [
        f"{images:,} {actual} images were called {guess} ({percent(share)} of them)"
        for actual, guess, images, share in common
    ]
    return "The commonest mistakes: " + "; ".join(parts) + "."


def _colour(row: Mapping[str, Any]) -> str:
    return Expression[str(row["expression"]).upper()].colour
