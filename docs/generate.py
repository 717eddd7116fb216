"""Writes the parts of the documentation that come from the code or from recorded runs.

    python docs/generate.py          write them
    python docs/generate.py --check  exit with 1 if one is out of date (the tests do this)

In a page, a generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/results.md", "docs/cli.md")
_SUBSETS = {
    "test": "all images",
    "clean": "clean subset: no near copy in Training",
    "near_twins": "near copies of training images alone",
    "ferplus": "agreement with the FER+ majority",
    "ferplus_clean": "agreement with the FER+ majority, clean subset",
}


def figures() -> str:
    """The headline figures of the recorded run, from the files that `dvc repro` wrote."""
    if not (ROOT / "docs/reference-run.json").exists():
        return (
            "No run on the real data is recorded yet, so no figure is claimed. `dvc repro` and "
            "`python docs/record.py` record one; [docs/runs.md](docs/runs.md) tells of the runs "
            "so far."
        )
    from fer.reports.subsets import headlines

    metrics = _json("reports/evaluation/metrics.json")
    run = _json("docs/reference-run.json")
    rows = ["| PrivateTest | accuracy | 95 % interval | images |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {_SUBSETS[section]} | **{found[figure]:.2%}** | {_range(found, figure)} | "
        f"{found['n']:,} |"
        for section, figure, found in headlines(metrics)
    ]
    test = metrics["test"]
    classes = ", ".join(f"{name} {value:.2f}" for name, value in metrics["f1"].items())
    rows += [
        "",
        f"Macro-F1 {test['macro_f1']:.3f} ({test['macro_f1_low']:.3f} to "
        f"{test['macro_f1_high']:.3f}); F1 per class: {classes}. Expected calibration error "
        f"{test['ece_before']:.3f} as trained, {test['ece']:.3f} after {_scaling(metrics)}.",
        "",
        *_views(metrics),
        *_robustness(),
        f"One run of `dvc repro`, {run['date']}, {run['machine']}, {_devices(run)}seed "
        f"{run['seed']}: "
        f"{run['epochs']} epochs in {run['training_minutes']} minutes at "
        f"{run['peak_memory_gb']} GB of memory, {run['training_images']:,} training images, "
        f"initial weights: {run['initial_weights']}. Weights and recipe were chosen "
        "without PrivateTest; how the form of the calibration was, docs/runs.md says.",
        "",
        _shipped(),
    ]
    return "\n".join(rows)


def _shipped() -> str:
    """What ships in place of that model, by its own package."""
    manifest = _json("fer/reference_model/manifest.json")
    found, size = manifest["metrics"], manifest["files"]["model.tflite"]["size"]
    judged = manifest["lineage"]["quantization"]["validation"]
    return (
        "The model that ships with the library is this one in 8-bit integers "
        f"([fer quantize](#a-smaller-faster-model), {size / 1e6:.1f} MB): "
        f"**{found['test']['accuracy']:.2%}** ({_range(found['test'], 'accuracy')}) on all images, "
        f"{found['clean']['accuracy']:.2%} on the clean subset, "
        f"{found['ferplus']['agreement']:.2%} agreement with the FER+ majority, calibration error "
        f"{found['test']['ece']:.3f}. Of {judged['images']:,} validation images it calls "
        f"{judged['same_answers']:.1%} the same as floats do, and is right on "
        f"{judged['accuracy']:.2%} of them, where floats are on {judged['accuracy_before']:.2%}."
    )


def _devices(run: Any) -> str:
    """What it was trained on and with which profile; earlier records do not name them."""
    return f"{run['devices']}, profile {run['profile']}, " if "devices" in run else ""


def _range(figures: Any, name: str) -> str:
    """The bounds of a share to two digits, as the README's accuracy has them."""
    return f"{figures[f'{name}_low']:.2%} to {figures[f'{name}_high']:.2%}"


def _scaling(metrics: Any) -> str:
    text = f"(T = {metrics['temperature']:.2f}"
    if metrics.get("curvature"):
        return f"scaling {text}, curvature {metrics['curvature']:.2f}; fitted on PublicTest)"
    return f"temperature scaling {text}, fitted on PublicTest)"


def _views(metrics: Any) -> list[str]:
    """A paragraph on test-time views, where they were measured."""
    views = metrics.get("views")
    if not views:
        return []
    parts = [
        f"{views[section]['accuracy']:.2%} ({_range(views[section], 'accuracy')}) on {what}"
        for section, what in (("test", "all images"), ("clean", "the clean subset"))
    ]
    return [
        f"All of it is of one view per image. Averaged over {views['count']} views: "
        f"{' and '.join(parts)}.",
        "",
    ]


def _robustness() -> list[str]:
    """The worst that was done to pictures; the plot and the model card have all of it."""
    path = "reports/evaluation/robustness.json"
    if not (ROOT / path).exists():
        return []
    found = _json(path)
    worst = sorted(found["conditions"], key=lambda one: float(one["test"]["difference"]))[:4]
    changes = ", ".join(
        f"{one['kind']} ({one['level']}) {one['test']['difference'] * 100:+.1f}" for one in worst
    )
    return [
        f"What costs most points, on {found['untouched']['test']['n']:,} of the images: {changes}. "
        "The plot below shows the rest.",
        "",
    ]


def cleaning() -> str:
    """What the data gate and cleaning found."""
    report, gate = _json("reports/cleaning.json"), _json("reports/validation/validation.json")
    copies, conflicts = gate["duplicates"], gate["conflicting"]
    exact, near = report["exact_twins"], report["near_twins"]
    return "\n".join(
        [
            "| found in FER2013 | count |",
            "| --- | --- |",
            f"| redundant exact copies, in groups | {copies['redundant']:,} in "
            f"{copies['groups']:,} |",
            f"| images whose exact copy has another label, in groups | {conflicts['images']} in "
            f"{conflicts['groups']} |",
            f"| all-black images (with nearly constant ones) | {gate['blanks']['all_black']} "
            f"({gate['blanks']['total']}) |",
            f"| PrivateTest images that are in Training, exactly | {exact['test']} |",
            f"| PublicTest images that are in Training, exactly | {exact['validation']} |",
            f"| PrivateTest images with a near copy in Training | {near['test']} |",
            f"| PublicTest images with a near copy in Training | {near['validation']} |",
            f"| training images left out: twins, blanks | {report['dropped_twin']}, "
            f"{report['dropped_blank']} |",
            f"| training images used | {report['kept']:,} of {report['training_images']:,} |",
            f"| clean subset of PrivateTest | {report['clean_subset']['test']:,} of 3,589 |",
        ]
    )


def results_schema() -> str:
    """The columns of the results."""
    from fer.inference.results import COLUMNS, markdown

    return markdown(COLUMNS).rstrip()


def quarantine_schema() -> str:
    """The columns of the quarantine."""
    from fer.inference.results import QUARANTINE_COLUMNS, markdown

    return markdown(QUARANTINE_COLUMNS).rstrip()


def _commands() -> Iterator[tuple[str, ...]]:
    """The words of `fer` itself and of every command, in the order of its help."""
    import typer

    from fer.cli import app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not hasattr(command, "commands"):
            yield words
        for name in getattr(command, "commands", {}):
            yield from below(command.commands[name], (*words, name))

    yield ()
    yield from below(typer.main.get_command(app), ())


def cli() -> str:
    """The help of every command."""
    parts = []
    for command in _commands():
        done = subprocess.run(
            [sys.executable, "-m", "fer", *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "90", "TERM": "dumb", "NO_COLOR": "1", "HOME": "/home/you"},
        )
        text = done.stdout.replace("python -m fer", "fer").strip()
        parts.append(f"## fer {' '.join(command)}".rstrip() + f"\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "figures": figures,
    "cleaning": cleaning,
    "results": results_schema,
    "quarantine": quarantine_schema,
    "cli": cli,
}


def generated(page: str) -> str:
    """A page with its generated parts as they should be."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- begin {name} -->\n{PARTS[name]()}\n<!-- end {name} -->"

    pattern = r"<!-- begin (?P<name>\w+) -->.*?<!-- end (?P=name) -->"
    return re.sub(pattern, fill, page, flags=re.DOTALL)


def main() -> int:
    """Write or check."""
    stale = []
    for name in PAGES:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = generated(old)
        if new != old:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if stale:
        verb = "out of date; run: make docs" if "--check" in sys.argv else "written"
        print(f"{', '.join(stale)}: {verb}")
    return 1 if stale and "--check" in sys.argv else 0


def _json(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
