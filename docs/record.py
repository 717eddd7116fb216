"""Records the run that lies in the working tree as the reference run: its figures and its model.

    dvc repro && python docs/record.py && python docs/generate.py

Writes docs/reference-run.json, copies the run's plots to docs/images, and makes the model that
ships with the library (fer/reference_model). No FER2013 image is among them.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLOTS = {
    "models/trained/curves.png": "curves.png",
    "reports/evaluation/confusion.png": "confusion.png",
    "reports/evaluation/reliability.png": "reliability.png",
    "reports/evaluation/robustness.png": "robustness.png",
}


def main() -> None:
    """Write the record."""
    time = _json("reports/training_time.json")
    training = _json("models/trained/training.json")
    weights = training["initial_weights"]
    started = (ROOT / "reports/training_time.json").stat().st_mtime
    record = {
        "date": datetime.fromtimestamp(started, UTC).date().isoformat(),
        "machine": machine(),
        "devices": training["devices"],
        "profile": profile(),
        "seed": training["seed"],
        "epochs": training["epochs"],
        "best_epoch": training["best_epoch"],
        "training_minutes": round(time["seconds_in_epochs"] / 60),
        "peak_memory_gb": round(time["peak_memory_mb"] / 1024, 1),
        "training_images": training["training_images"],
        "initial_weights": weights["kind"]
        + (f" {weights['name']}, sha256 {weights['sha256'][:12]}" if "name" in weights else ""),
        "keras": training["keras"],
        "backend": training["backend"],
        "shipped": shipped(),
    }
    text = json.dumps(record, indent=2) + "\n"
    (ROOT / "docs/reference-run.json").write_text(text, encoding="utf-8")
    (ROOT / "docs/images").mkdir(exist_ok=True)
    for source, name in PLOTS.items():
        shutil.copyfile(ROOT / source, ROOT / "docs/images" / name)
    print(text, end="")


def shipped() -> dict[str, Any]:
    """Make the shipped model, and compare it on the test set with the one that it is made of."""
    import numpy as np
    import pyarrow.parquet as pq

    from fer.dataset.table import FaceTable
    from fer.expressions import EXPRESSIONS
    from fer.inference.classifier import Classifier
    from fer.reference import make_reference

    made = make_reference(ROOT / "models/package")
    test = FaceTable.read(ROOT / "data/prepared/faces.parquet").part("test")
    answers = Classifier(made.file("model.onnx")).probabilities(test.pixels)
    rows = pq.read_table(ROOT / "reports/evaluation/predictions.parquet")
    rows = rows.filter(np.asarray(rows["split"].to_pylist()) == "test")
    full = np.stack([rows[f"p_{name}"].to_numpy() for name in EXPRESSIONS], axis=1)
    if rows["name"].to_pylist() != list(test.name):
        raise SystemExit("The predictions are not of this table. Run: dvc repro")
    return {
        "megabytes": round(made.file("model.onnx").stat().st_size / 1e6, 1),
        "accuracy": float((answers.argmax(axis=1) == test.expression).mean()),
        "answers_that_differ": int((answers.argmax(axis=1) != full.argmax(axis=1)).sum()),
        "largest_difference": round(float(np.abs(answers - full).max()), 4),
    }


def profile() -> str:
    """The profile that the run was made with, as dvc.lock has it."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    return str(lock["stages"]["train"]["params"]["params.yaml"]["profile"])


def machine() -> str:
    """Processor, cores and memory, in words."""
    from fer.doctor.machine import processor

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {processor()}, {memory:.0f} GB"


def _json(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
