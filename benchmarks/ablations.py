"""Short trainings of the recipe with one thing changed at a time, beside the recipe itself.

    FER_WEIGHTS=start.weights.h5 python benchmarks/ablations.py             # all, two seeds
    python benchmarks/ablations.py --only no-mixup size-64 --minutes 60     # within an hour
    python benchmarks/ablations.py --table --into docs/recipe.md            # from the records

Each training is `fer train` in a process of its own, on a fixed stratified part of Training, at
48 px and for few epochs where the variant says nothing else, judged on all of validation
(PublicTest) after its last epoch. Images of the test split are dropped before anything is made of
the table. One JSON file per variant and seed under --out: a series that was stopped goes on where
it was, and a training that was under way begins anew. All variants of a seed come before the next.

A short training shows little of what pays only over many epochs: mixup, erasing, dropout and the
changes of light and place cost accuracy as long as nothing is learnt by heart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import report
import yaml

_SUBSET_SEED = 0
_MARKS = ("<!-- begin ablations -->", "<!-- end ablations -->")
COLUMNS = ("variant", "change", "seeds", "validation accuracy, %", "difference, points",
           "by seed", "mean recall, %", "validation loss", "images/s")  # fmt: skip

PAGE = """{machine}. Measured by `benchmarks/ablations.py`: {images:,} training images, {epochs}
epochs, judged on {validation:,} validation images after the last one; initial weights {weights}.
Mean over seeds (smallest to largest). The difference is from `base` with the same seeds, image by
image; its 95 % interval is for other images of the same kind, not for other seeds: how far these
lead apart is under "by seed".
"""


@dataclass(frozen=True)
class Variant:
    """One change of the recipe.

    `train` replaces keys of the section at any depth. `power`: each image counts by its class's
    rarity to this power. `twins`: Training holds the copies of validation images too.
    """

    change: str
    train: dict[str, Any] = field(default_factory=dict)
    power: float = 0.0
    twins: bool = False


def variants(base: dict[str, Any]) -> dict[str, Variant]:
    """All of them by name, from the short recipe's section `train`."""
    size, rate = base["input_size"], base["finetune"]["learning_rate"]
    head, tune = base["head"]["epochs"], base["finetune"]["epochs"]
    larger = size * 4 // 3
    growing = [{"size": size, "epochs": head + tune // 2}]
    return {
        "base": Variant("none"),
        "no-mixup": Variant("mixup off", {"mixup": {"alpha": 0.0}}),
        "cutmix": Variant("half of the images patched, not blended", {"mixup": {"cutmix": 0.5}}),
        "no-smoothing": Variant("label smoothing 0", {"label_smoothing": 0.0}),
        "no-erase": Variant("erasing off", {"augment": {"erase": 0.0}}),
        "no-camera": Variant("`noise` and `far` off", {"augment": {"noise": 0.0, "far": 0.0}}),
        "no-jitter": Variant(
            "shift, scale and rotation off",
            {"augment": {"shift": 0.0, "scale": 0.0, "rotation": 0.0}},
        ),
        "no-light": Variant(
            "brightness and contrast off", {"augment": {"brightness": 0.0, "contrast": 0.0}}
        ),
        "no-dropout": Variant("dropout 0", {"dropout": 0.0}),
        "class-weights": Variant("loss weighted by inverse class frequency", power=1.0),
        "class-weights-root": Variant("by its square root", power=0.5),
        "half-rate": Variant("half the peak rate", {"finetune": {"learning_rate": rate / 2}}),
        "double-rate": Variant("double the peak rate", {"finetune": {"learning_rate": rate * 2}}),
        "average": Variant("weights averaged, momentum 0.99", {"finetune": {"average": 0.99}}),
        "no-head": Variant("no phase 1", {"head": {"epochs": 0}}),
        "long-head": Variant("phase 1 twice as long", {"head": {"epochs": 2 * head}}),
        "larger": Variant(f"{larger} px throughout", {"input_size": larger}),
        "growing": Variant(
            f"{size} px, then {larger} px for the second half",
            {"input_size": larger, "smaller_first": growing},
        ),
        "twins": Variant("the copies of validation images left in Training", twins=True),
    }


def short_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """params.yaml as `base` trains it: one size, few epochs, never stopped early."""
    from fer.params import merged

    document: dict[Any, Any] = yaml.safe_load(options.params.read_text(encoding="utf-8"))
    train = document["train"]
    planned = train["head"]["epochs"] + train["finetune"]["epochs"]
    share = options.epochs / planned
    changes = {
        "input_size": options.size,
        "smaller_first": [],
        "batch_size": options.batch_size or train["batch_size"],
        "weights": options.weights or train["weights"],
        "head": {"epochs": 1},
        "finetune": {"epochs": options.epochs - 1},
        "early_stopping": {"patience": options.epochs},
        "mixup": {"off_epochs": round(train["mixup"]["off_epochs"] * share)},
    }
    return document | {"profile": "cpu", "train": merged(train, changes)}


def params_of(variant: Variant, seed: int, options: argparse.Namespace) -> Any:
    """The parameters of one training."""
    from fer.params import merged, parse_params

    document = short_recipe(options)
    # A profile's changes would come on top of the variant's.
    document["profiles"] = document["profiles"] | {"cpu": {}}
    document["train"] = merged(document["train"], variant.train)
    return parse_params(document | {"seed": seed})


def fewer(table: Any, images: int, *, twins: bool = False) -> Any:
    """A stratified part of Training and all of validation; nothing of the test split.

    With `twins` the copies of validation images that cleaning had left out stand for as many
    others of the part, so that the number of steps is the same.
    """
    validation = np.flatnonzero(table.split == "validation")
    train = table.split == "train"
    kept = np.flatnonzero(train & (table.cleaning == "keep"))
    generator = np.random.default_rng(_SUBSET_SEED)
    shuffled = generator.permutation(kept)
    # Of each class the same share: rank within the class, over the size of the class.
    place = np.empty(len(shuffled))
    for label in np.unique(table.expression):
        members = np.flatnonzero(table.expression[shuffled] == label)
        place[members] = (np.arange(len(members)) + 0.5) / max(len(members), 1)
    chosen = shuffled[np.argsort(place, kind="stable")][:images]
    if twins:
        copies = train & (table.cleaning == "twin")
        copies &= np.isin(table.sha256, table.sha256[validation])
        rows = np.flatnonzero(copies)
        chosen = np.concatenate([rows, chosen[: max(len(chosen) - len(rows), 0)]])
    # The order of the table, so that a batch differs by the images alone.
    part = table.rows(np.concatenate([np.sort(chosen), validation]))
    part.cleaning[:] = "keep"
    return part


def rarity(labels: Any, power: float) -> Any:
    """Weights of the seven classes, float32, by inverse frequency to a power; 1 on average."""
    count = np.maximum(np.bincount(labels, minlength=7), 1)
    weights = (len(labels) / count) ** power
    return (weights / weights[labels].mean()).astype(np.float32)


def work(name: str, seed: int, options: argparse.Namespace) -> None:
    """Train one variant with one seed, and write its record."""
    from fer.dataset.table import FaceTable
    from fer.files import write_text
    from fer.training import start
    from fer.training import train as module

    variant = variants(short_recipe(options)["train"])[name]
    params = params_of(variant, seed, options)
    place = options.out / f"{name}-{seed}"
    machine = report.machine("keras", "tensorflow-cpu", "tensorflow", "jax")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    table = fewer(FaceTable.read(options.faces), options.images, twins=variant.twins)
    table.write(place / "faces.parquet")
    trainer = _recording(module, params.train.epochs)
    if variant.power:
        module._Sequence = _weighted(  # type: ignore[misc]
            module, rarity(table.part("train").expression, variant.power)
        )
    started = time.perf_counter()
    document = start.train(
        params=params,
        faces=place / "faces.parquet",
        out=place / "trained",
        curves=place / "curves" / "live",
        checkpoints=place / "checkpoints",
    )
    times = json.loads((place / "curves" / "training_time.json").read_text())
    record = {
        "variant": name,
        "change": variant.change,
        "seed": seed,
        "settings": settings_of(options),
        "validation_accuracy": document["validation_accuracy"],
        "validation_loss": document["validation_loss"],
        "predicted": trainer.logits.argmax(axis=1).tolist(),
        "expression": table.part("validation").expression.tolist(),
        "images_per_second": speed(times["epochs"], document["training_images"]),
        "seconds": round(time.perf_counter() - started, 1),
        "train": document["params"],
        "training_images": document["training_images"],
        "initial_weights": document["initial_weights"],
        "history": times["epochs"],
        "machine": machine,
    }
    # Compact: two numbers for each validation image.
    text = json.dumps(record, separators=(",", ":"), sort_keys=True)
    write_text(record_path(options.out, name, seed), text + "\n")
    shutil.rmtree(place)


def _recording(module: Any, epochs: int) -> Any:
    """Make the training judge its last epoch only, and keep what it predicted there."""
    import keras

    class Recording(module.Trainer):  # type: ignore[misc,name-defined]
        logits: Any = None
        judged = 0

        def _validate(self) -> tuple[float, float]:
            type(self).judged += 1
            if self.judged < epochs:
                return 0.0, 0.0  # worse than any, so the last epoch is the one that is kept
            predict = keras.Model.predict

            def kept(model: Any, *arguments: Any, **options: Any) -> Any:
                found = predict(model, *arguments, **options)
                type(self).logits = found[: len(self.validation)]
                return found

            with mock.patch.object(keras.Model, "predict", kept):
                loss, accuracy = super()._validate()
            return float(loss), float(accuracy)

    module.Trainer = Recording
    return Recording


def _weighted(module: Any, weights: Any) -> Any:
    """Batches in which each image has a weight: that of its classes, by their shares."""

    class Weighted(module._Sequence):  # type: ignore[misc,name-defined]
        def __getitem__(self, step: int) -> Any:
            batch = super().__getitem__(step)
            if not isinstance(batch, tuple):
                return batch  # of validation, which is not weighted
            pixels, shares = batch
            return pixels, shares, shares @ weights

    return Weighted


def speed(epochs: Sequence[dict[str, Any]], images: int) -> float:
    """Images per second of phase 2 without its first epoch, which compiles; else of phase 1."""
    tuned = [one for one in epochs if one["phase"] == "finetune"]
    seconds = [one["seconds"] for one in tuned or epochs]
    return round(images / max(statistics.median(seconds[1:] or seconds), 1e-3), 1)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all records of a series must share, to be compared."""
    from fer.files import sha256_of
    from fer.training.checkpoint import run_key
    from fer.training.weights import initial_weights

    recipe = short_recipe(options)["train"]
    kind, path = initial_weights(recipe["weights"])
    return {
        "recipe": run_key(recipe),
        "faces": sha256_of(options.faces),
        "weights": sha256_of(path) if path else kind,
        "images": options.images,
        "epochs": options.epochs,
        "size": options.size,
        "batch_size": options.batch_size,
    }


def record_path(out: Path, name: str, seed: int) -> Path:
    """Where a training's record is."""
    return out / f"{name}-{seed}.json"


def read_records(out: Path) -> list[dict[str, Any]]:
    """All that there are."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*-*.json"))]


def train_all(options: argparse.Namespace, arguments: list[str], names: list[str]) -> None:
    """Run what has no record yet, as far as the minutes go."""
    settings, started = settings_of(options), time.monotonic()
    others = {one["variant"] for one in read_records(options.out) if one["settings"] != settings}
    if others:
        raise SystemExit(
            f"{options.out} holds records of other data, weights, parameters or sizes "
            f"({', '.join(sorted(others))}). Give another --out, or delete them."
        )
    planned = [
        (name, seed)
        for seed in options.seeds
        for name in names
        if not record_path(options.out, name, seed).exists()
    ]
    for number, (name, seed) in enumerate(planned):
        spent = (time.monotonic() - started) / 60
        known = [one["seconds"] / 60 for one in read_records(options.out)]
        each = statistics.mean(known) if known else 0.0
        left = f", about {each * (len(planned) - number):.0f} minutes to go" if known else ""
        if options.minutes is not None and spent + each > options.minutes:
            _say(f"{len(planned) - number} of {len(planned)} left for another call: time is up")
            return
        _say(f"{number + 1} of {len(planned)}: {name}, seed {seed}{left}")
        command = [sys.executable, __file__, *arguments, "--worker", f"{name},{seed}"]
        # The JSON of the workers would mix with the table.
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(f"{name} with seed {seed} ended with status {done.returncode}.")


def difference(found: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy less the base's, in points, with the same seeds and image by image.

    The interval is the normal one of the images' mean change over the seeds: 95 %.
    """
    by_seed = {one["seed"]: one for one in base}
    pairs = [(one, by_seed[one["seed"]]) for one in found if one["seed"] in by_seed]
    if not pairs:
        return {"mean": None}
    changes = np.stack([_right(one) - _right(other) for one, other in pairs])
    each = changes.mean(axis=0)
    half = 1.96 * float(each.std(ddof=1)) / len(each) ** 0.5
    mean = float(each.mean())
    return {
        "mean": 100 * mean,
        "low": 100 * (mean - half),
        "high": 100 * (mean + half),
        "by_seed": [100 * float(one) for one in changes.mean(axis=1)],
    }


def _right(record: dict[str, Any]) -> Any:
    return np.equal(record["predicted"], record["expression"]).astype(float)


def mean_recall(record: dict[str, Any]) -> float:
    """Mean of the classes' recalls, in percent: every class counts the same."""
    right, labels = _right(record), np.asarray(record["expression"])
    return 100 * float(np.mean([right[labels == one].mean() for one in np.unique(labels)]))


def page(records: Sequence[dict[str, Any]], order: Sequence[str]) -> str:
    """What the records say, in Markdown."""
    of = {name: [one for one in records if one["variant"] == name] for name in order}
    rows = []
    for name, found in of.items():
        if not found:
            continue
        apart = difference(found, of["base"]) if name != "base" else {"mean": None}
        shown = [""] * 2
        if apart["mean"] is not None:
            shown = [
                f"{apart['mean']:+.1f} ({apart['low']:+.1f} to {apart['high']:+.1f})",
                ", ".join(f"{one:+.1f}" for one in apart["by_seed"]),
            ]
        rows.append(
            [
                name,
                found[0]["change"],
                str(len(found)),
                _mean([100 * one["validation_accuracy"] for one in found], 1),
                *shown,
                _mean([mean_recall(one) for one in found], 1),
                _mean([one["validation_loss"] for one in found], 3),
                _mean([one["images_per_second"] for one in found], 0),
            ]
        )
    if not rows:
        raise SystemExit("There is no record yet.")
    first = next(one for name in order for one in of[name])
    weights = first["initial_weights"]
    head = PAGE.format(
        machine=first["machine"],
        images=first["training_images"],
        epochs=first["settings"]["epochs"],
        validation=len(first["expression"]),
        weights=weights.get("sha256", weights["kind"])[:12],
    )
    return f"{head}\n{report.table(COLUMNS, rows)}\n"


def _mean(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def put(text: str, path: Path) -> None:
    """Replace what a document has between the marks."""
    from fer.files import write_text

    before, begin, rest = path.read_text(encoding="utf-8").partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not begin or not end:
        raise SystemExit(f"{path} lacks {_MARKS[0]} or {_MARKS[1]}.")
    write_text(path, f"{before}{begin}\n{text}{end}{after}")


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, default=Path("data/prepared/faces.parquet"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, default=Path("build/ablations"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these, and the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2013, 2014])
    parser.add_argument("--minutes", type=float, help="start nothing that would end later")
    parser.add_argument("--images", type=int, default=7000, help="training images")
    parser.add_argument("--epochs", type=int, default=6, help="the first is phase 1")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch-size", type=int, help="instead of train.batch_size")
    parser.add_argument("--weights", help="instead of train.weights; FER_WEIGHTS wins")
    parser.add_argument("--table", action="store_true", help="train nothing: show the records")
    parser.add_argument("--into", type=Path, help="put the table between the marks of a document")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train what is missing, and print a table."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    options = options_of(None)
    if options.worker:
        name, _, seed = options.worker.rpartition(",")
        work(name, int(seed), options)
        return
    order = list(variants(short_recipe(options)["train"]))
    if unknown := set(options.only or ()) - set(order):
        raise SystemExit(f"No variant {', '.join(sorted(unknown))}; there are {', '.join(order)}.")
    names = [name for name in order if not options.only or name in {"base", *options.only}]
    if not options.table:
        train_all(options, sys.argv[1:], names)
    text = page(read_records(options.out), order)
    print(text)
    if options.into:
        put(text, options.into)


if __name__ == "__main__":
    main()
