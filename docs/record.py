"""Records the run that lies in the working tree as the reference run: its figures and its model.

    dvc repro && fer quantize && python docs/record.py && python docs/generate.py

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
    ship()
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
    }
    text = json.dumps(record, indent=2) + "\n"
    (ROOT / "docs/reference-run.json").write_text(text, encoding="utf-8")
    (ROOT / "docs/images").mkdir(exist_ok=True)
    for source, name in PLOTS.items():
        shutil.copyfile(ROOT / source, ROOT / "docs/images" / name)
    print(text, end="")


def ship() -> None:
    """Make the shipped model."""
    from fer.reference import make_reference
    from fer.registry.package import ModelPackage

    full = ModelPackage.open(ROOT / "models/package")
    small = ModelPackage.open(ROOT / "models/quantized")
    if small.manifest.lineage.get("made_of") != full.digest:
        raise SystemExit("models/quantized is not made of models/package. Run: fer quantize")
    make_reference(small.folder)


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
