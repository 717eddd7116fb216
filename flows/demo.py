"""The whole workflow on drawn faces, with nothing but this checkout: `make demo`.

It makes a small project of its own (the same dvc.yaml, smaller parameters), draws photographs,
runs the four flows against a Prefect server that lives as long as the run, and writes a page
that shows what came out. Run again, it does only what changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from fer.errors import FerError, WorkflowError
from fer.expressions import EXPRESSIONS, Expression
from fer.files import write_text
from fer.params import merged

CHECKOUT: Final = Path(__file__).resolve().parent.parent
_CODE: Final = ("dataset", "training", "evaluation")

# What differs from params.yaml. The training begins from the model that ships with the library:
# from random weights, minutes teach EfficientNetB2 nothing.
DEMO_PARAMS: Final[dict[str, Any]] = {
    "data": {"source": "synthetic", "synthetic": {"images_per_class": 120}},
    "validate": {"min_rows": {"train": 500, "test": 50}},
    "profile": "cpu",  # the GPU's would put its own sizes and epochs in place of these
    "train": {
        "input_size": 48,
        "smaller_first": [],
        "weights": "start.weights.h5",
        "batch_size": 8,  # many steps, in which batch norm learns what drawn faces are like
        "label_smoothing": 0.05,
        "finetune": {"epochs": 5, "learning_rate": 5.0e-4, "warmup_epochs": 0.5},
        "early_stopping": {"patience": 10},
        "mixup": {"alpha": 0.0},
    },
    "package": {
        "name": "demo",
        "description": "Trained for a few minutes on drawn faces. A demonstration, not a model.",
    },
    "gate": {
        "min_accuracy": 0.3,
        "min_macro_f1": 0.2,
        "max_calibration_error": 0.5,
        "min_recall": dict.fromkeys(EXPRESSIONS, 0.0),
    },
}


def main() -> None:
    """Run the demo; see `--help`."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="made if absent")
    arguments = parser.parse_args()
    # Exit as after ctrl-C: Prefect then ends the server that it started for this run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(arguments.folder.resolve())
    except FerError as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def run(folder: Path) -> Path:
    """Run the demo in a folder and return its page."""
    started = time.perf_counter()
    project, registry = folder / "project", folder / "registry"
    photographs, results = folder / "photographs", folder / "results"
    _environment(folder)
    say("1/3  Making a small project and drawing photographs")
    make_project(project)
    write_start_weights(project)
    draw_photographs(photographs)
    say("2/3  Running the flows: data, train, evaluate-and-register, batch-inference")
    say("     (a Prefect server starts for this run; the first start takes up to half a minute)")
    # Prefect reads its settings when it is imported, so not before they are set.
    from flows.workflow import run_workflow

    outcome = run_workflow(
        project=project, registry=str(registry), input=str(photographs), output=str(results)
    )
    say("3/3  Writing the page")
    page = write_page(folder, outcome, time.perf_counter() - started)
    _farewell(folder, page, outcome, time.perf_counter() - started)
    return page


def _environment(folder: Path) -> None:
    """Keep everything inside the folder, and nothing of the caller's data in the demo."""
    for name in ("FER_DATA", "FER_WEIGHTS", "FER_FERPLUS", "FER_REGISTRY", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    os.environ.update(
        DO_NOT_TRACK="1",
        DVC_NO_ANALYTICS="1",
        FER_CACHE=str(folder / "cache"),
        KERAS_HOME=str(folder / "keras"),
        PREFECT_HOME=str(folder / "prefect"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
        PREFECT_LOGGING_LEVEL=os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
        TF_CPP_MIN_LOG_LEVEL="3",
    )


def make_project(project: Path, changes: Mapping[str, Any] = DEMO_PARAMS) -> None:
    """A DVC project with the checkout's stages, and its parameters with these changes."""
    project.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copyfile(CHECKOUT / name, project / name)
    # The stages depend on the code that they run; a copy here gives them the same to watch.
    code = project / "fer"
    shutil.rmtree(code, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in _CODE:
        shutil.copytree(CHECKOUT / "fer" / name, code / name, ignore=ignore)
    shutil.copyfile(CHECKOUT / "fer" / "packaging.py", code / "packaging.py")
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(merged(params, changes), sort_keys=False)
    write_text(project / "params.yaml", text)
    if not (project / ".dvc").exists():
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkflowError(f"dvc init failed in {project}: {done.stderr.strip()}")


def write_start_weights(project: Path) -> None:
    """Where the demo's training begins, written in a process of its own: it needs TensorFlow."""
    weights = project / str(DEMO_PARAMS["train"]["weights"])
    if weights.exists():
        return
    done = subprocess.run(
        [sys.executable, "-m", "fer", "weights", str(weights)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkflowError(f"The demo has nothing to start from: {done.stderr.strip()}")


def draw_photographs(folder: Path) -> None:
    """Scenes of one to three faces, one without any, one truncated file, one that is no image."""
    import cv2
    import numpy as np

    from fer.dataset.scenes import draw_scene

    if folder.exists():
        return
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)
    everyone = list(Expression)
    for number in range(8):
        chosen = [everyone[(number + step) % len(everyone)] for step in range(1 + number % 3)]
        picture, _ = draw_scene(chosen, generator)
        names = "-".join(one.label for one in chosen)
        cv2.imwrite(str(folder / f"{number + 1:02d}-{names}.jpg"), picture)
    empty = np.full((480, 640, 3), 190, np.uint8)
    cv2.imwrite(str(folder / "09-nobody.png"), empty)
    whole = (folder / "01-angry.jpg").read_bytes()
    (folder / "10-truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "11-no-picture.jpg").write_text("This is a text file.\n")


def write_page(folder: Path, outcome: Mapping[str, Any], seconds: float) -> Path:
    """The page of the demo: data, training, figures, registry, and what the photographs show."""
    from fer.reports.html import Fact, Image, Link, Section
    from fer.reports.pages import batch_page, render_summary

    project = folder / "project"
    metrics, release, batch = outcome["metrics"], outcome["release"], outcome["batch"]
    test = metrics["test"]
    photographs = batch_page(folder / "results", folder / "photographs.html")
    sections = [
        Section(
            "The data",
            "Drawn faces in place of FER2013, through the same gate, cleaning and splits.",
            links=[
                Link(
                    "Great Expectations Data Docs",
                    (project / "reports/validation/data_docs/index.html").as_uri(),
                )
            ],
        ),
        Section(
            "Training",
            "Phase 1 trains the head alone, phase 2 everything; the best epoch is kept.",
            images=[Image(project / "models/trained/curves.png", "Learning curves")],
        ),
        Section(
            "On the test set",
            facts=[
                Fact(
                    f"{test['accuracy']:.1%}",
                    "accuracy",
                    f"{test['accuracy_low']:.1%} to {test['accuracy_high']:.1%}",
                ),
                Fact(f"{test['macro_f1']:.2f}", "macro-F1"),
                Fact(f"{release.name}:{release.number}", f"registered as {release.alias}"),
            ],
            images=[Image(project / "reports/evaluation/confusion.png", "Confusion matrix")],
            links=[
                Link("The evaluation's page", (project / "reports/evaluation/index.html").as_uri())
            ],
        ),
        Section(
            "The photographs",
            f"{batch['pictures']} pictures, {batch['faces']} faces found by dlib; "
            f"{batch['quarantined'] + batch['quarantined_before']} files set aside with a reason.",
            links=[Link("What they show, and what was set aside", photographs.as_uri())],
        ),
    ]
    return render_summary(
        folder / "index.html",
        sections,
        title="The workflow on drawn faces",
        lead=f"Made by make demo in {seconds:.0f} seconds. Drawn faces are easy: nothing here "
        "says how well real ones are recognised.",
    )


def _farewell(folder: Path, page: Path, outcome: Mapping[str, Any], seconds: float) -> None:
    test, release, batch = outcome["metrics"]["test"], outcome["release"], outcome["batch"]
    aside = batch["quarantined"] + batch["quarantined_before"]
    model = f"{release.name}@{release.alias}"
    registry = os.path.relpath(folder / "registry")
    say(
        f"""
Done in {seconds:.0f} s.
  data       drawn, validated by Great Expectations, cleaned, split
  training   EfficientNetB2 in two phases
  test set   {test["accuracy"]:.1%} of {test["n"]} drawn faces are right
  registry   {release.name}:{release.number} is @{release.alias}
  batch      {batch["pictures"]} pictures, {batch["faces"]} faces, {aside} files set aside

Look at
  {os.path.relpath(page)}
      the summary; open it in a browser
  {os.path.relpath(folder / "results")}
      Parquet, one row per face
  {registry}
      the model registry

Next
  source .venv/bin/activate
  fer predict photo.jpg --model {model} --registry {registry}
  FER_DATA=fer2013.zip dvc repro      # the real thing; see README.md
  make test"""
    )


def say(text: str) -> None:
    """Print a line of the demo's own."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
