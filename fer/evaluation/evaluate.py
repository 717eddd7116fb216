"""Stage evaluate: a trained model against the validation and test splits of the prepared table."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
    softmax,
)
from fer.evaluation.ferplus import majority_by_name
from fer.evaluation.intervals import Interval, bootstrap_calibration, bootstrap_confusion, wilson
from fer.evaluation.latency import LogitsModel, measure
from fer.evaluation.metrics import class_figures, confusion_matrix, f1_scores, macro_f1
from fer.expressions import EXPRESSIONS
from fer.files import atomic_path, write_json, write_text
from fer.params import EvaluateParams

_SCHEMA: Final = "fer-metrics/1"
# Beyond six digits a figure says more about the order of additions than about the model.
_DIGITS: Final = 6
_BATCH: Final = 256


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: the content of metrics.json. `test`: all test images. `clean`: without near
            copies of training images; `near_twins`: those copies alone. `ferplus`,
            `ferplus_clean`: against the FER+ majority, only where votes were given. Shares are
            0 to 1; `<figure>_low` and `_high` bound its interval.
        per_class: one mapping per expression: support, precision, recall, f1 and their bounds.
        confusion: (7, 7) counts on the test split, row = actual.
        before: reliability bins on the test split as trained.
        after: the same after temperature scaling.
    """

    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64]
    before: list[ReliabilityBin]
    after: list[ReliabilityBin]

    @property
    def temperature(self) -> float:
        """What logits are to be divided by, fitted on validation."""
        return float(self.metrics["temperature"])

    @property
    def text(self) -> str:
        """The headline figures in a few lines, for people."""
        lines = []
        for title, section, figure in (
            ("accuracy, all test images", "test", "accuracy"),
            ("accuracy, clean subset", "clean", "accuracy"),
            ("macro-F1, all test images", "test", "macro_f1"),
            ("calibration error, scaled", "test", "ece"),
            ("agreement with FER+", "ferplus", "agreement"),
        ):
            found = self.metrics.get(section, {})
            if figure in found:
                low, high = found[f"{figure}_low"], found[f"{figure}_high"]
                lines.append(f"{title:<27} {found[figure]:.4f}  ({low:.4f} to {high:.4f})")
        return "\n".join(lines)


def evaluate(
    *,
    faces: Path,
    model: Path,
    ferplus: Path | None,
    params: EvaluateParams,
    seed: int,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate `model.onnx` and write the report to `out`.

    Nothing is chosen on the test split: the one fitted number, the temperature, comes from
    validation. Written are metrics.json and per_class.csv, confusion.csv and .png,
    reliability.csv and .png, per_class.png, predictions.parquet, latency.json and index.html.
    Equal inputs give equal metrics; latency.json differs from run to run. metrics.json is
    written last: where it is, the rest is.

    Args:
        faces: the prepared table, faces.parquet.
        model: folder with model.onnx.
        ferplus: table of votes by name; None or one without rows leaves those figures out.
        params: section `evaluate`.
        seed: of the bootstrap.
        out: folder, made if absent.
        progress: called with (images done, images in all); by default a bar on a terminal.

    Raises:
        TableError: the table is absent or damaged, or its validation or test split is empty.
        PackageError: model.onnx is absent or no model of this project.
    """
    from fer.inference.classifier import Classifier
    from fer.progress import Progress
    from fer.settings import settings

    table = FaceTable.read(faces)
    path = model / "model.onnx"
    classifier = Classifier(path)
    held_out = table.rows((table.split == "validation") | (table.split == "test"))
    if progress is None:
        with Progress("Evaluating") as bar:
            logits = _logits(classifier, held_out.pixels, bar.update)
    else:
        logits = _logits(classifier, held_out.pixels, progress)
    found = assess(held_out, logits, params, seed, majority=_majority(ferplus, held_out))
    found.metrics["model_bytes"] = path.stat().st_size
    latency = measure(
        classifier,
        params.latency_runs,
        threads=settings().threads or os.cpu_count(),
        model_bytes=path.stat().st_size,
    )
    write_report(found, held_out, logits, latency, out)
    return found


def assess(
    table: FaceTable,
    logits: NDArray[np.float32],
    params: EvaluateParams,
    seed: int,
    *,
    majority: NDArray[np.int64] | None = None,
) -> Evaluation:
    """All figures of an evaluation, from logits.

    Args:
        table: rows of the splits validation and test; others are ignored.
        logits: (n, 7), row by row, as trained (not divided by any temperature).
        params: section `evaluate`.
        seed: of the bootstrap.
        majority: (n,) FER+ majority of each row, -1 where not usable.

    Raises:
        TableError: the validation or test split is empty, or a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise TableError("The model gives logits that are not finite: train it again.")
    validation, test = table.split == "validation", table.split == "test"
    for name, rows in (("validation", validation), ("test", test)):
        if not rows.any():
            raise TableError(
                f"The prepared table has no {name} image. Check the source, then run "
                "`dvc repro prepare`."
            )
    actual = table.expression.astype(np.int64)
    predicted = logits.argmax(axis=1)
    temperature = round(fit_temperature(logits[validation], actual[validation]), _DIGITS)
    trained = softmax(logits).max(axis=1)
    scaled = softmax(logits, temperature).max(axis=1)
    correct = predicted == actual
    bins, level = params.calibration_bins, params.confidence

    confusion = confusion_matrix(actual[test], predicted[test])
    sections: dict[str, Any] = {
        "schema": _SCHEMA,
        "confidence": level,
        "temperature": temperature,
        "test_set": _digest(table.rows(test)),
        "validation": _accuracy(correct[validation], level)
        | {"nll": negative_log_likelihood(logits[validation], actual[validation], temperature)},
        "test": _figures(actual[test], predicted[test], params, seed)
        | {
            "nll_before": negative_log_likelihood(logits[test], actual[test]),
            "nll": negative_log_likelihood(logits[test], actual[test], temperature),
        },
    }
    for name, confidences in (("ece_before", trained), ("ece", scaled)):
        interval = bootstrap_calibration(
            confidences[test],
            correct[test],
            bins=bins,
            resamples=params.bootstrap,
            seed=seed,
            confidence=level,
        )
        error = expected_calibration_error(confidences[test], correct[test], bins)
        sections["test"] |= _bounded(name, error, interval)
    clean, twins = test & ~table.near_twin, test & table.near_twin
    sections["clean"] = _figures(actual[clean], predicted[clean], params, seed)
    if clean.any():
        sections["clean"]["ece"] = expected_calibration_error(scaled[clean], correct[clean], bins)
    sections["near_twins"] = _accuracy(correct[twins], level)
    if majority is not None:
        for name, rows in (("ferplus", test), ("ferplus_clean", clean)):
            usable = rows & (majority >= 0)
            sections[name] = _agreement(majority[usable], predicted[usable], actual[usable], level)
    rows = _per_class(confusion, params, seed)
    sections["f1"] = {row["expression"]: row["f1"] for row in rows}
    return Evaluation(
        metrics=_rounded(sections),
        per_class=_rounded(rows),
        confusion=confusion,
        before=reliability_bins(trained[test], correct[test], bins),
        after=reliability_bins(scaled[test], correct[test], bins),
    )


def write_report(
    found: Evaluation,
    table: FaceTable,
    logits: NDArray[np.float32],
    latency: Mapping[str, Any],
    out: Path,
) -> None:
    """Write every file of the report; see `evaluate`."""
    from fer.reports.evaluation_page import evaluation_page
    from fer.reports.plots import plot_confusion, plot_per_class, plot_reliability

    predicted = logits.argmax(axis=1)
    test = table.split == "test"
    write_text(out / "per_class.csv", _csv(found.per_class))
    # One row per image: the form that `dvc plots` draws a confusion matrix from.
    pairs = [
        {"actual": EXPRESSIONS[actual], "predicted": EXPRESSIONS[guess]}
        for actual, guess in zip(table.expression[test], predicted[test], strict=True)
    ]
    write_text(out / "confusion.csv", _csv(pairs))
    write_text(out / "reliability.csv", _csv(_reliability_rows(found)))
    plot_confusion(found.confusion, out / "confusion.png")
    plot_reliability(
        found.before,
        found.after,
        out / "reliability.png",
        ece_before=found.metrics["test"]["ece_before"],
        ece_after=found.metrics["test"]["ece"],
        temperature=found.temperature,
    )
    plot_per_class(found.per_class, out / "per_class.png")
    _write_predictions(table, logits, found.temperature, out / "predictions.parquet")
    write_json(out / "latency.json", dict(latency))
    evaluation_page(found, latency, table.manifest, out)
    write_json(out / "metrics.json", found.metrics)


def read_per_class(path: Path) -> list[dict[str, Any]]:
    """The rows of a per_class.csv, figures as numbers: what the model card takes.

    Raises:
        TableError: absent, or no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            {
                name: text if name == "expression" else (int if name == "support" else float)(text)
                for name, text in row.items()
            }
            for row in rows
        ]
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, ValueError) as error:
        raise TableError(f"{path} cannot be read ({error}). Run `dvc repro evaluate`.") from None


def _logits(
    classifier: LogitsModel, pixels: NDArray[np.uint8], progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    result = np.empty((len(pixels), len(EXPRESSIONS)), dtype=np.float32)
    for start in range(0, len(pixels), _BATCH):
        part = slice(start, start + _BATCH)
        result[part] = classifier.logits(pixels[part])
        progress(min(start + _BATCH, len(pixels)), len(pixels))
    return result


def _majority(ferplus: Path | None, table: FaceTable) -> NDArray[np.int64] | None:
    """The FER+ majority by row, or None where there are no votes for any of them."""
    if ferplus is None or not len(table):
        return None
    found = majority_by_name(ferplus, table.name.tolist())
    return found if (found >= 0).any() else None


def _figures(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """Accuracy and macro-F1 of a set of images with their intervals; only `n` if it is empty."""
    figures = _accuracy(actual == predicted, params.confidence)
    if len(actual):
        confusion = confusion_matrix(actual, predicted)
        low, high = bootstrap_confusion(
            confusion,
            macro_f1,
            resamples=params.bootstrap,
            seed=seed,
            confidence=params.confidence,
        )
        figures |= _bounded("macro_f1", float(macro_f1(confusion)), Interval(low, high))
    return figures


def _accuracy(correct: NDArray[np.bool_], level: float) -> dict[str, Any]:
    n, hits = len(correct), int(correct.sum())
    if n == 0:
        return {"n": 0}
    return {"n": n} | _bounded("accuracy", hits / n, wilson(hits, n, level))


def _agreement(
    majority: NDArray[np.int64],
    predicted: NDArray[np.int64],
    actual: NDArray[np.int64],
    level: float,
) -> dict[str, Any]:
    n, hits = len(majority), int((predicted == majority).sum())
    if n == 0:
        return {"n": 0}
    # How far FER2013's own label agrees: without it the model's figure has no scale.
    labels = float((actual == majority).mean())
    return {"n": n, "label_agreement": labels} | _bounded(
        "agreement", hits / n, wilson(hits, n, level)
    )


def _per_class(
    confusion: NDArray[np.int64], params: EvaluateParams, seed: int
) -> list[dict[str, Any]]:
    bounds = bootstrap_confusion(
        confusion,
        f1_scores,
        resamples=params.bootstrap,
        seed=seed,
        confidence=params.confidence,
    )
    # A class that no resample holds has no interval: nothing is known of it.
    bounds = np.where(np.isnan(bounds), np.array([[0.0], [1.0]]), bounds)
    rows = []
    for index, one in enumerate(class_figures(confusion)):
        row: dict[str, Any] = {"expression": one.expression, "support": one.support}
        row |= _bounded(
            "precision", one.precision, wilson(one.hits, one.predicted, params.confidence)
        )
        row |= _bounded("recall", one.recall, wilson(one.hits, one.support, params.confidence))
        row |= _bounded("f1", one.f1, Interval(float(bounds[0, index]), float(bounds[1, index])))
        rows.append(row)
    return rows


def _bounded(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _digest(table: FaceTable) -> str:
    """Which images with which labels these are: figures compare only where it is the same."""
    digest = hashlib.sha256()
    for line in sorted(
        f"{sha256} {int(label)}\n"
        for sha256, label in zip(table.sha256, table.expression, strict=True)
    ):
        digest.update(line.encode())
    return digest.hexdigest()[:12]


def _reliability_rows(found: Evaluation) -> list[dict[str, Any]]:
    return [
        _rounded(
            {
                "scaling": scaling,
                "low": one.low,
                "high": one.high,
                "images": one.count,
                "confidence": one.confidence,
                "accuracy": one.accuracy,
            }
        )
        for scaling, bins in (("before", found.before), ("after", found.after))
        for one in bins
        if one.count
    ]


def _write_predictions(
    table: FaceTable, logits: NDArray[np.float32], temperature: float, out: Path
) -> None:
    """One row per held-out image, with its identity and no pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    probabilities = softmax(logits, temperature).astype(np.float32)
    names = np.asarray(EXPRESSIONS)
    columns = {
        "name": pa.array(table.name.tolist(), pa.string()),
        "sha256": pa.array(table.sha256.tolist(), pa.string()),
        "split": pa.array(table.split.tolist(), pa.string()),
        "near_twin": pa.array(table.near_twin.astype(bool)),
        "actual": pa.array(names[table.expression].tolist(), pa.string()),
        "predicted": pa.array(names[logits.argmax(axis=1)].tolist(), pa.string()),
    }
    for index, name in enumerate(EXPRESSIONS):
        columns[f"p_{name}"] = pa.array(probabilities[:, index])
    with atomic_path(out) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _rounded(document: Any) -> Any:
    if isinstance(document, Mapping):
        return {name: _rounded(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_rounded(value) for value in document]
    if isinstance(document, float):
        return round(float(document), _DIGITS)
    return document
