"""Splits, cleaning and the prepared table."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facefiles import ROOT, Pixels, crop, noise, params_file, photo
from hypothesis import given
from hypothesis import strategies as st
from smalldisk import on_small_disk

from fer.dataset.prepare import carve_validation, clean, cleaning_report, prepare
from fer.dataset.table import FaceTable, SourceImage, write_source
from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.params import PrepareParams

PARAMS = PrepareParams(
    validation_share=0.2,
    drop_blanks=True,
    blank_spread=2.0,
    drop_twins=True,
    near_twin_correlation=0.95,
    near_twin_shift=5,
)
BLANK = np.zeros((48, 48), np.uint8)


def image(name: str, pixels: Pixels) -> SourceImage:
    split, label, _ = name.split("/")
    return SourceImage(name, split, label, pixels)


def plain(validation: bool = True) -> list[SourceImage]:
    """Ten training images a class, two of the other splits, none like another."""
    counts = {"train": 10, "validation": 2 if validation else 0, "test": 2}
    return [
        image(f"{split}/{label}/{number}.png", noise(hash_of(split, label, number)))
        for split, count in counts.items()
        for label in EXPRESSIONS
        for number in range(count)
    ]


def hash_of(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)


def run(folder: Path, images: list[SourceImage], **changes: Any) -> FaceTable:
    write_source(folder / "images.parquet", images)
    params = PARAMS.model_copy(update=changes)
    return prepare(folder / "images.parquet", params, 2013, folder / "out", folder / "c.json")


def row(table: FaceTable, name: str) -> tuple[str, bool]:
    (index,) = np.flatnonzero(table.name == name)
    return str(table.cleaning[index]), bool(table.near_twin[index])


def test_the_table_holds_every_image_as_it_was(tmp_path: Path) -> None:
    images = plain()
    table = run(tmp_path, images)
    assert len(table) == len(images) == 98
    stored = FaceTable.read(tmp_path / "out" / "faces.parquet")
    for one in images:
        (index,) = np.flatnonzero(stored.name == one.name)
        assert np.array_equal(stored.pixels[index], one.pixels)  # type: ignore[arg-type]
        assert EXPRESSIONS[stored.expression[index]] == one.label
        assert stored.split[index] == one.split
        assert stored.sha256[index] == hashlib.sha256(stored.pixels[index].tobytes()).hexdigest()
    assert set(stored.cleaning) == {"keep"}
    assert not stored.near_twin.any()
    assert stored.manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert stored.manifest["splits_rule"] == "as the source names them"
    assert stored.manifest["splits"]["train"] == {
        "images": 70, "kept": 70, "near_twins": 0, "classes": dict.fromkeys(EXPRESSIONS, 10),
    }  # fmt: skip
    assert json.loads((tmp_path / "c.json").read_text()) == cleaning_report(stored)


def test_a_repeat_writes_the_same_bytes(tmp_path: Path) -> None:
    def digests() -> list[str]:
        run(tmp_path, plain(validation=False))
        paths = [*sorted((tmp_path / "out").iterdir()), tmp_path / "c.json"]
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    assert digests() == digests()


def test_twins_and_blanks_leave_training_and_only_training(tmp_path: Path) -> None:
    twin, face = noise(1), photo(5)
    table = run(
        tmp_path,
        [
            *plain(),
            image("train/sad/twin-of-test.png", twin),
            image("test/happy/twin.png", twin),  # whatever its label
            image("train/sad/twin-of-validation.png", noise(2)),
            image("validation/sad/twin.png", noise(2)),
            image("train/sad/near.png", crop(face)),
            image("test/sad/near.png", crop(face, 3, -4)),
            image("train/sad/blank.png", BLANK),
            image("train/sad/nearly-blank.png", BLANK + np.eye(48, dtype=np.uint8)),
            image("test/sad/blank.png", BLANK + 9),
            image("validation/sad/blank.png", BLANK),
        ],
    )
    assert row(table, "train/sad/twin-of-test.png") == ("twin", False)
    assert row(table, "train/sad/twin-of-validation.png") == ("twin", False)
    assert row(table, "test/happy/twin.png") == ("keep", True)
    assert row(table, "validation/sad/twin.png") == ("keep", True)
    # A near copy stays in training; the clean subset leaves out the held-out one.
    assert row(table, "train/sad/near.png") == ("keep", False)
    assert row(table, "test/sad/near.png") == ("keep", True)
    assert row(table, "train/sad/blank.png") == ("blank", False)
    assert row(table, "train/sad/nearly-blank.png") == ("blank", False)
    assert row(table, "test/sad/blank.png") == ("keep", False)
    assert row(table, "validation/sad/blank.png") == ("keep", True)  # an exact copy
    assert cleaning_report(table) == {
        "training_images": 75,
        "kept": 71,
        "dropped_blank": 2,
        "dropped_twin": 2,
        "exact_twins": {"validation": 2, "test": 1},
        "near_twins": {"validation": 2, "test": 2},
        "clean_subset": {"validation": 14, "test": 15},
    }


def test_cleaning_does_what_params_say() -> None:
    pixels = np.stack([noise(1), noise(1), BLANK, noise(2)])
    split = np.array(["train", "test", "train", "train"])
    sha256 = np.array(["a", "a", "b", "c"])

    def cleaned(**changes: Any) -> list[str]:
        return clean(pixels, split, sha256, PARAMS.model_copy(update=changes)).tolist()

    assert cleaned() == ["twin", "keep", "blank", "keep"]
    assert cleaned(drop_twins=False) == ["keep", "keep", "blank", "keep"]
    assert cleaned(drop_blanks=False) == ["twin", "keep", "keep", "keep"]
    assert cleaned(blank_spread=0.0) == ["twin", "keep", "keep", "keep"]


def test_without_a_validation_split_one_is_made(tmp_path: Path) -> None:
    table = run(tmp_path, plain(validation=False))
    assert table.manifest["splits_rule"] == "validation: a stratified 20.0% of train, seed 2013"
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        classes = table.manifest["splits"][split]["classes"]
        assert classes == dict.fromkeys(EXPRESSIONS, count)


@given(
    labels=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30)), min_size=20, max_size=200),
    share=st.floats(0.05, 0.45),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_carved_validation_is_stratified_and_splits_no_copies(
    labels: list[tuple[int, int]], share: float, seed: int
) -> None:
    expression = np.array([label for label, _ in labels], np.int8)
    sha256 = np.array([str(content) for _, content in labels])
    split = np.array(["test" if index % 5 == 0 else "train" for index in range(len(labels))])
    result = carve_validation(split, expression, sha256, share, seed)
    assert (result[split == "test"] == "test").all()
    assert set(result) <= {"train", "validation", "test"}
    held, kept = sha256[result == "validation"], sha256[result == "train"]
    assert not set(held) & set(kept)
    again = carve_validation(split, expression, sha256, share, seed)
    assert np.array_equal(result, again)
    train = split == "train"
    first = {content: label for label, content in reversed(
        list(zip(expression[train], sha256[train], strict=True)))}  # fmt: skip
    for label in range(7):
        groups = {content for content, one in first.items() if one == label}
        assert len(groups & set(held)) == round(share * len(groups))


def test_another_seed_carves_another_validation() -> None:
    labels = np.repeat(np.arange(7, dtype=np.int8), 20)
    names = np.arange(140).astype(str)
    split = np.full(140, "train")
    one, other = (carve_validation(split, labels, names, 0.2, seed) for seed in (1, 2))
    assert (one == "validation").sum() == (other == "validation").sum() == 28
    assert not np.array_equal(one, other)


def odd(name: str, **changes: Any) -> SourceImage:
    return SourceImage(
        **{"name": name, "split": "train", "label": "sad", "pixels": noise(1), **changes}
    )


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([odd("a.png", pixels=None, problem="text")], "a.png"),
        ([odd("a.png", pixels=noise(1, 64))], "a.png"),
        ([odd("a.png", pixels=noise(1).reshape(24, 96))], "a.png"),
        ([odd("a.png", mode="RGB")], "a.png"),
        ([odd("a.png", label="contempt")], "a.png"),
        ([odd("a.png", split="holdout")], "a.png"),
    ],
)
def test_what_the_gate_stops_on_is_refused_and_nothing_is_written(
    tmp_path: Path, images: list[SourceImage], match: str
) -> None:
    with pytest.raises(TableError, match=rf"^1 images.*{match}.*fer data validate"):
        run(tmp_path, [*plain(), *images])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.parquet"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_source_without_a_split_is_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(TableError, match=f"has no {split} images"):
        run(tmp_path, [one for one in plain() if one.split != split])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.parquet"]


def test_too_few_images_for_a_validation_split_are_refused(tmp_path: Path) -> None:
    images = [one for one in plain(validation=False) if one.split == "test" or "/0" in one.name]
    with pytest.raises(TableError, match="too few training images"):
        run(tmp_path, images)


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    write_source(path, plain())
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["mode"]), path)
    with pytest.raises(TableError, match="lacks the column mode: string"):
        prepare(path, PARAMS, 1, tmp_path / "out", tmp_path / "c.json")
    wide = table.set_column(3, "width", table["width"].cast(pa.int64()))
    pq.write_table(wide, path)
    with pytest.raises(TableError, match="lacks the column width: int32"):
        prepare(path, PARAMS, 1, tmp_path / "out", tmp_path / "c.json")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_cleaning_did(cli: Callable[..., Any], tmp_path: Path) -> None:
    write_source(tmp_path / "images.parquet", plain())
    options = (
        "--params", params_file(tmp_path / "params.yaml"), "--source", tmp_path,
        "--out", tmp_path / "out", "--report", tmp_path / "reports" / "cleaning.json",
    )  # fmt: skip
    ended = cli("data", "prepare", *options)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("70 of 70 training images kept (0 twins and 0 blanks left)")
    ended = cli("data", "prepare", "--json", *options)
    assert json.loads(ended.out) == json.loads((tmp_path / "reports" / "cleaning.json").read_text())
    described = cli("data", "describe", "--prepared", tmp_path / "out")
    assert described.status == 0
    assert described.out.splitlines()[1].split() == ["train", "70", *["10"] * 7]
    described = cli("data", "describe", "--json", "--prepared", tmp_path / "out")
    assert json.loads(described.out)["splits"]["test"]["images"] == 14


@pytest.mark.parametrize("command", ["validate", "prepare", "describe"])
@pytest.mark.parametrize("fault", ["absent", "truncated", "no table"])
def test_a_bad_table_is_one_error(
    cli: Callable[..., Any], tmp_path: Path, command: str, fault: str
) -> None:
    run(tmp_path / "made", plain())
    (tmp_path / "data").mkdir()
    made = tmp_path / "made"
    if fault != "absent":
        for path in (made / "images.parquet", made / "out" / "faces.parquet"):
            content = path.read_bytes()
            (tmp_path / "data" / path.name).write_bytes(
                content[: len(content) // 2] if fault == "truncated" else b"no table"
            )
    options: list[object] = ["--prepared", tmp_path / "data"]
    if command != "describe":
        options = ["--params", params_file(tmp_path / "p.yaml"), "--source", tmp_path / "data"]
        options += ["--out", tmp_path / "out"]
    if command == "prepare":
        options += ["--report", tmp_path / "c.json"]
    ended = cli("data", command, *options)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("fer: ")
    assert ended.err.count("\n") == 1
    assert "dvc repro" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    write_source(tmp_path / "images.parquet", plain())
    params = params_file(tmp_path / "params.yaml")
    disk = tmp_path / "disk"
    done = on_small_disk(
        disk,
        "100k",
        [sys.executable, "-m", "fer", "data", "prepare", "--params", str(params),
         "--source", str(tmp_path), "--out", str(disk / "out"),
         "--report", str(disk / "cleaning.json")],
        folder=ROOT,
    )  # fmt: skip
    assert done.status == 1, done.stderr
    assert done.stderr.startswith("fer: the disk is full")
    assert done.stderr.count("\n") == 1
    assert [name for name in done.left if name != "out"] == []
