"""The files of an evaluation's report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.calibration import Calibration, softmax
from fer.evaluation.figures import rounded
from fer.expressions import EXPRESSIONS
from fer.files import atomic_path, write_json, write_text

if TYPE_CHECKING:
    from fer.evaluation.evaluate import Evaluation


def write_report(
    found: Evaluation,
    table: FaceTable,
    logits: NDArray[np.float32],
    latency: Mapping[str, Any],
    out: Path,
) -> None:
    """Write every file of the report; see `fer.evaluation.evaluate.evaluate`."""
    from fer.reports.evaluation_page import evaluation_page
    from fer.reports.plots import plot_confusion, plot_per_class, plot_reliability
    from fer.reports.robustness_plot import plot_robustness

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
        calibration=found.calibration,
    )
    plot_per_class(found.per_class, out / "per_class.png")
    _write_predictions(table, logits, found.calibration, out / "predictions.parquet")
    if found.robustness:
        plot_robustness(found.robustness, out / "robustness.png")
        write_json(out / "robustness.json", found.robustness)
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


def _reliability_rows(found: Evaluation) -> list[dict[str, Any]]:
    return [
        rounded(
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
    table: FaceTable, logits: NDArray[np.float32], calibration: Calibration, out: Path
) -> None:
    """One row per held-out image, with its identity and no pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    probabilities = softmax(logits, calibration).astype(np.float32)
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
