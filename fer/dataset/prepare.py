"""Stage prepare: splits, cleaning, and one table that training, evaluation and others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.frames import COLUMNS
from fer.dataset.table import SIDE, SPLITS, FaceTable, read_source
from fer.dataset.twins import near_twins
from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.files import atomic_paths, write_json
from fer.params import PrepareParams
from fer.progress import Progress

if TYPE_CHECKING:
    import pyarrow

_JUDGED: Final = ("name", "split", "label", "width", "height", "mode", "pixels")


def prepare(images: Path, params: PrepareParams, seed: int, out: Path, report: Path) -> FaceTable:
    """Write `faces.parquet` and `manifest.json` to `out`, and what cleaning did to `report`.

    All three are written together or not at all.

    Args:
        images: the source table, already through the gate.
        params: section `prepare`.
        seed: of the validation carve-out.
        out: folder, made if absent.
        report: JSON file.

    Raises:
        TableError: the source table is absent or not what the gate lets through.
    """
    source = _checked(read_source(images), images)
    names = np.asarray(source["name"].to_pylist(), dtype=np.str_)
    pixels = np.frombuffer(b"".join(source["pixels"].to_pylist()), np.uint8)
    pixels = pixels.reshape(-1, SIDE, SIDE)
    expression = np.asarray(
        [EXPRESSIONS.index(label) for label in source["label"].to_pylist()], dtype=np.int8
    )
    sha256 = np.asarray(source["sha256"].to_pylist(), dtype=np.str_)
    split = np.asarray(source["split"].to_pylist(), dtype=np.str_)
    rule = "as the source names them"
    if not (split == "validation").any():
        rule = f"validation: a stratified {params.validation_share:.1%} of train, seed {seed}"
        split = carve_validation(split, expression, sha256, params.validation_share, seed)
        if not (split == "validation").any():
            raise TableError(
                f"{images} has too few training images to make {params.validation_share:.1%} of "
                "them the validation split. Raise prepare.validation_share, or add images."
            )
    cleaning = clean(pixels, split, sha256, params)

    train = split == "train"
    near = np.zeros(len(split), bool)
    with Progress("Looking for near copies of training images") as progress:
        held_out = np.flatnonzero(~train)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done, len(held_out))

        near[held_out] = near_twins(
            pixels[held_out],
            pixels[train],
            correlation=params.near_twin_correlation,
            shift=params.near_twin_shift,
            advance=advance,
        )
    # An exact copy counts as near whatever the correlation says (a constant image has none).
    near |= ~train & np.isin(sha256, sha256[train])

    manifest: dict[str, Any] = {
        "schema": "fer-prepared/1",
        "classes": list(EXPRESSIONS),
        "side": SIDE,
        "splits_rule": rule,
        "clean_subset_rule": (
            f"images whose correlation with every training image of the source, shifted by up to "
            f"{params.near_twin_shift} px, is at most {params.near_twin_correlation}"
        ),
        "splits": {
            name: {
                "images": int((split == name).sum()),
                "kept": int(((split == name) & (cleaning == "keep")).sum()),
                "near_twins": int((near & (split == name)).sum()),
                "classes": {
                    label: int(((split == name) & (expression == index)).sum())
                    for index, label in enumerate(EXPRESSIONS)
                },
            }
            for name in SPLITS
        },
    }
    table = FaceTable(names, pixels, expression, split, sha256, cleaning, near, manifest)
    targets = (out / "faces.parquet", out / "manifest.json", report)
    with atomic_paths(*targets) as (faces_file, manifest_file, report_file):
        table.write(faces_file)
        write_json(manifest_file, manifest)
        write_json(report_file, cleaning_report(table))
    return table


def _checked(source: pyarrow.Table, path: Path) -> pyarrow.Table:
    """The source table, if it is what the data gate lets through."""
    found = {f"{field.name}: {field.type}" for field in source.schema}
    if missing := [one for one in COLUMNS if one not in found]:
        raise TableError(f"{path} lacks the column {missing[0]}. Run fer data fetch again.")
    rows = zip(*(source[name].to_pylist() for name in _JUDGED), strict=True)
    unfit = [
        str(name)
        for name, split, label, width, height, mode, pixels in rows
        if None in (name, pixels)
        or (width, height, len(pixels), mode) != (SIDE, SIDE, SIDE * SIDE, "L")
        or label not in EXPRESSIONS
        or split not in SPLITS
    ]
    if unfit:
        raise TableError(
            f"{len(unfit)} images are unreadable, not {SIDE}x{SIDE} px grey, or of no known class "
            f"or split, such as {', '.join(unfit[:3])}. The data gate (fer data validate) stops "
            "on these; run it."
        )
    for split in ("train", "test"):
        if split not in source["split"].unique().to_pylist():
            raise TableError(
                f"{path} has no {split} images. The data gate (fer data validate) stops on that; "
                "run it, and fix the source."
            )
    return source


def carve_validation(
    split: NDArray[np.str_],
    expression: NDArray[np.int8],
    sha256: NDArray[np.str_],
    share: float,
    seed: int,
) -> NDArray[np.str_]:
    """Move a stratified share of train to validation, exact copies staying together."""
    result = split.astype("<U10")  # long enough for "validation"
    train = np.flatnonzero(split == "train")
    _, group = np.unique(sha256[train], return_inverse=True)
    # A group's class is that of its first image; conflicting copies are few.
    first = np.full(group.max() + 1, -1)
    for position, member in enumerate(group):
        if first[member] < 0:
            first[member] = expression[train[position]]
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(first), bool)
    for label in range(len(EXPRESSIONS)):
        groups = generator.permutation(np.flatnonzero(first == label))
        chosen[groups[: round(share * len(groups))]] = True
    result[train[chosen[group]]] = "validation"
    return result


def clean(
    pixels: NDArray[np.uint8],
    split: NDArray[np.str_],
    sha256: NDArray[np.str_],
    params: PrepareParams,
) -> NDArray[np.str_]:
    """What cleaning says of each image: keep, blank or twin. Only training images leave."""
    cleaning = np.full(len(split), "keep", dtype="<U5")
    train = split == "train"
    if params.drop_twins:
        cleaning[train & np.isin(sha256, sha256[~train])] = "twin"
    if params.drop_blanks:
        cleaning[train & (pixels.std(axis=(1, 2)) < params.blank_spread)] = "blank"
    return cleaning


def cleaning_report(table: FaceTable) -> dict[str, Any]:
    """How many images left training and why, and what is alike across the splits."""
    held_out = {name: table.split == name for name in ("validation", "test")}
    train = table.split == "train"
    return {
        "training_images": int(train.sum()),
        "kept": int((train & (table.cleaning == "keep")).sum()),
        "dropped_blank": int((table.cleaning == "blank").sum()),
        "dropped_twin": int((table.cleaning == "twin").sum()),
        "exact_twins": {
            name: int(np.isin(table.sha256[rows], table.sha256[train]).sum())
            for name, rows in held_out.items()
        },
        "near_twins": {name: int(table.near_twin[rows].sum()) for name, rows in held_out.items()},
        "clean_subset": {
            name: int((~table.near_twin[rows]).sum()) for name, rows in held_out.items()
        },
    }
