"""Stage evaluate: a trained model against the validation and test splits of the prepared table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.calibration import (
    Calibration,
    ReliabilityBin,
    expected_calibration_error,
    fit_calibration,
    negative_log_likelihood,
    reliability_bins,
    softmax,
)
from fer.evaluation.corruptions import CORRUPTIONS
from fer.evaluation.ferplus import majority_by_name
from fer.evaluation.figures import DIGITS, bounded, classified, rounded, share
from fer.evaluation.intervals import Interval, bootstrap_calibration, bootstrap_confusion, wilson
from fer.evaluation.latency import LogitsModel, measure
from fer.evaluation.metrics import class_figures, confusion_matrix, f1_scores
from fer.evaluation.robustness import measure_robustness, sample
from fer.evaluation.views import further_views, predictions, views_section
from fer.expressions import EXPRESSIONS
from fer.params import EvaluateParams
from fer.registry.manifest import MODELS

_SCHEMA: Final = "fer-metrics/1"
_BATCH: Final = 256


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: the content of metrics.json. `test`: all test images. `clean`: without near
            copies of training images; `near_twins`: those copies alone. `ferplus`,
            `ferplus_clean`: against the FER+ majority, only where votes were given. `views`:
            the same subsets by the mean of several views, only where that was asked for;
            everything else is of one view. Shares are 0 to 1; `<figure>_low` and `_high` bound
            its interval.
        per_class: one mapping per expression: support, precision, recall, f1 and their bounds.
        confusion: (7, 7) counts on the test split, row = actual.
        before: reliability bins on the test split as trained.
        after: the same after scaling.
        robustness: the content of robustness.json; empty where it was not measured.
    """

    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64]
    before: list[ReliabilityBin]
    after: list[ReliabilityBin]
    robustness: dict[str, Any] = field(default_factory=dict)

    @property
    def calibration(self) -> Calibration:
        """What makes probabilities of the logits, fitted on validation."""
        return Calibration(self.metrics["temperature"], self.metrics["curvature"])

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
        if views := self.metrics.get("views"):
            found, title = views["test"], f"accuracy, mean of {views['count']} views"
            low, high = found["accuracy_low"], found["accuracy_high"]
            lines.append(f"{title:<27} {found['accuracy']:.4f}  ({low:.4f} to {high:.4f})")
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
    """Evaluate an exported model and write the report to `out`.

    Nothing is chosen on the test split: what is fitted, the calibration, comes from validation.
    Written are metrics.json and per_class.csv, confusion.csv and .png, reliability.csv and .png,
    robustness.json and .png, per_class.png, predictions.parquet, latency.json and index.html.
    Equal inputs give equal metrics; latency.json differs from run to run. metrics.json is
    written last: where it is, the rest is.

    Args:
        faces: the prepared table, faces.parquet.
        model: folder with model.onnx or model.tflite.
        ferplus: table of votes by name; None or one without rows leaves those figures out.
        params: section `evaluate`.
        seed: of the bootstrap, and of the images and noise that robustness is measured with.
        out: folder, made if absent.
        progress: called with (predictions made, predictions in all); by default a bar on a
            terminal.

    Raises:
        TableError: the table is absent or damaged, or its validation or test split is empty.
        PackageError: the model is absent or none of this project.
    """
    from fer.evaluation.report import write_report
    from fer.inference.classifier import Classifier
    from fer.progress import Progress
    from fer.settings import settings

    table = FaceTable.read(faces)
    path = next((model / name for name in MODELS if (model / name).is_file()), model / MODELS[0])
    classifier = Classifier(path)
    held_out = table.rows((table.split == "validation") | (table.split == "test"))
    if progress is None:
        with Progress("Evaluating") as bar:
            found, logits = _measured(classifier, held_out, ferplus, params, seed, bar.update)
    else:
        found, logits = _measured(classifier, held_out, ferplus, params, seed, progress)
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
        logits: (n, 7), row by row, as trained (before any calibration).
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
    fitted = fit_calibration(logits[validation], actual[validation])
    calibration = Calibration(*(round(one, DIGITS) for one in fitted))
    trained = softmax(logits).max(axis=1)
    scaled = softmax(logits, calibration).max(axis=1)
    correct = predicted == actual
    bins, level = params.calibration_bins, params.confidence

    confusion = confusion_matrix(actual[test], predicted[test])
    sections: dict[str, Any] = {
        "schema": _SCHEMA,
        "confidence": level,
        **calibration._asdict(),
        "test_set": _digest(table.rows(test)),
        "validation": share("accuracy", correct[validation], level)
        | {"nll": negative_log_likelihood(logits[validation], actual[validation], calibration)},
        "test": classified(actual[test], predicted[test], params, seed)
        | {
            "nll_before": negative_log_likelihood(logits[test], actual[test]),
            "nll": negative_log_likelihood(logits[test], actual[test], calibration),
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
        sections["test"] |= bounded(name, error, interval)
    clean, twins = test & ~table.near_twin, test & table.near_twin
    sections["clean"] = classified(actual[clean], predicted[clean], params, seed)
    if clean.any():
        sections["clean"]["ece"] = expected_calibration_error(scaled[clean], correct[clean], bins)
    sections["near_twins"] = share("accuracy", correct[twins], level)
    if majority is not None:
        for name, rows in (("ferplus", test), ("ferplus_clean", clean)):
            usable = rows & (majority >= 0)
            sections[name] = _agreement(majority[usable], predicted[usable], actual[usable], level)
    rows = _per_class(confusion, params, seed)
    sections["f1"] = {row["expression"]: row["f1"] for row in rows}
    return Evaluation(
        metrics=rounded(sections),
        per_class=rounded(rows),
        confusion=confusion,
        before=reliability_bins(trained[test], correct[test], bins),
        after=reliability_bins(scaled[test], correct[test], bins),
    )


def _measured(
    classifier: LogitsModel,
    table: FaceTable,
    ferplus: Path | None,
    params: EvaluateParams,
    seed: int,
    progress: Callable[[int, int], None],
) -> tuple[Evaluation, NDArray[np.float32]]:
    """Everything but latency, and the logits of the held-out images as they are."""
    test = table.split == "test"
    faces = table.rows(test)
    chosen = sample(faces, params.robustness_images, seed)
    further = sum(1 for _ in further_views(faces.pixels[:0], params.views))
    total = len(table) + further * len(faces) + len(CORRUPTIONS) * len(chosen)
    done = 0

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal done
        result = np.empty((len(pixels), len(EXPRESSIONS)), dtype=np.float32)
        for start in range(0, len(pixels), _BATCH):
            part = slice(start, start + _BATCH)
            result[part] = classifier.logits(pixels[part])
            done += len(result[part])
            progress(done, total)
        return result

    logits = run(table.pixels)
    majority = _majority(ferplus, table)
    found = assess(table, logits, params, seed, majority=majority)
    single = logits[test]
    if params.views > 1:
        averaged = predictions(faces.pixels, single, params.views, found.calibration, run)
        found.metrics["views"] = rounded(
            views_section(
                params.views,
                averaged,
                single.argmax(axis=1),
                _subsets(faces, None if majority is None else majority[test]),
                params.confidence,
            )
        )
    robustness = measure_robustness(
        faces.rows(chosen), single[chosen], run, params.confidence, seed
    )
    return replace(found, robustness=rounded(robustness)), logits


def _subsets(
    faces: FaceTable, majority: NDArray[np.int64] | None
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Rows of the test images and the labels they are compared with, as metrics.json names them."""
    everything, actual = np.ones(len(faces), bool), faces.expression.astype(np.int64)
    subsets = {"test": (everything, actual), "clean": (~faces.near_twin, actual)}
    if majority is not None:
        usable = majority >= 0
        subsets["ferplus"] = (usable, majority)
        subsets["ferplus_clean"] = (usable & ~faces.near_twin, majority)
    return subsets


def _majority(ferplus: Path | None, table: FaceTable) -> NDArray[np.int64] | None:
    """The FER+ majority by row, or None where there are no votes for any of them."""
    if ferplus is None or not len(table):
        return None
    found = majority_by_name(ferplus, table.name.tolist())
    return found if (found >= 0).any() else None


def _agreement(
    majority: NDArray[np.int64],
    predicted: NDArray[np.int64],
    actual: NDArray[np.int64],
    level: float,
) -> dict[str, Any]:
    figures = share("agreement", predicted == majority, level)
    if figures["n"]:
        # How far FER2013's own label agrees: without it the model's figure has no scale.
        figures["label_agreement"] = float((actual == majority).mean())
    return figures


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
        row |= bounded(
            "precision", one.precision, wilson(one.hits, one.predicted, params.confidence)
        )
        row |= bounded("recall", one.recall, wilson(one.hits, one.support, params.confidence))
        row |= bounded("f1", one.f1, Interval(float(bounds[0, index]), float(bounds[1, index])))
        rows.append(row)
    return rows


def _digest(table: FaceTable) -> str:
    """Which images with which labels these are: figures compare only where it is the same."""
    digest = hashlib.sha256()
    for line in sorted(
        f"{sha256} {int(label)}\n"
        for sha256, label in zip(table.sha256, table.expression, strict=True)
    ):
        digest.update(line.encode())
    return digest.hexdigest()[:12]
