"""The data gate, on the real Great Expectations: each breach stops it and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.dataset.data_docs import remote_references
from fer.dataset.gate import GateReport, run_gate
from fer.dataset.table import SourceImage, read_source, write_source
from fer.errors import TableError, ValidationError
from fer.expressions import EXPRESSIONS
from fer.params import ValidateParams, load_params

ROOT = Path(__file__).parents[2]
COUNTS = {"train": 6, "validation": 2, "test": 2}

Change = Callable[[list[SourceImage]], list[SourceImage]]


def params(**changes: Any) -> ValidateParams:
    values = {
        "min_rows": {"train": 40, "test": 10},
        "class_share": (0.05, 0.3),
        "max_blanks": 0,
        "max_duplicate_share": 0.0,
        "max_conflicting": 0,
        "mean_grey": (100.0, 160.0),
        "grey_spread": (45.0, 85.0),
    }
    return ValidateParams(**{**values, **changes})


def sound() -> list[SourceImage]:
    """70 random images that every expectation accepts."""
    rng = np.random.default_rng(1)
    return [
        SourceImage(
            f"{split}/{label}/{number}.png",
            split,
            label,
            rng.normal(128, 62, (48, 48)).clip(0, 255).astype(np.uint8),
        )
        for split, count in COUNTS.items()
        for label in EXPRESSIONS
        for number in range(count)
    ]


def gate(folder: Path, images: list[SourceImage], **changes: Any) -> GateReport:
    write_source(folder / "images.parquet", images)
    return run_gate(folder / "images.parquet", params(**changes), folder / "out")


def document(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "out" / "validation.json").read_text())
    return result


def failed(folder: Path) -> set[str]:
    return {one["key"] for one in document(folder)["expectations"] if not one["passed"]}


def test_a_sound_source_passes(tmp_path: Path) -> None:
    report = gate(tmp_path, sound())
    assert report.passed
    assert failed(tmp_path) == set()
    assert report.summary["rows"]["train"] == {"total": 42, **dict.fromkeys(EXPRESSIONS, 6)}
    assert report.summary["twins"] == {"validation": 0, "test": 0}
    assert report.docs == tmp_path / "out" / "data_docs" / "index.html"
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "data_docs",
        "validation.json",
    ]


def edit(index: int, **changes: Any) -> Change:
    return lambda images: [*images[:index], replace(images[index], **changes), *images[index + 1 :]]


def grey(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(9).normal(128, 62, (height, width)).clip(0, 255).astype(np.uint8)


BREACHES: dict[str, tuple[Change, set[str], list[str]]] = {
    "unreadable image": (
        edit(3, pixels=None, mode=None, problem="truncated JPEG"),
        {"readable"},
        ["every image can be read", "1 image", "train/angry/3.png (truncated JPEG)"],
    ),
    "class missing": (
        lambda images: [one for one in images if (one.split, one.label) != ("train", "disgust")],
        {"classes_present", "class_share", "min_rows"},
        ["every split holds all seven expressions", "train/disgust: 0 (0.0%)", "36"],
    ),
    "class extra": (
        edit(0, label="contempt"),
        {"labels_known"},
        ["every label is one of the seven expressions", "train/angry/0.png (contempt)"],
    ),
    "label out of range": (
        edit(0, label="7"),
        {"labels_known"},
        ["train/angry/0.png (7)", "0 to 6 in a CSV"],
    ),
    "wider image": (
        edit(5, pixels=grey(48, 64)),
        {"width"},
        ["every image is 48 pixels wide", "train/angry/5.png (64)"],
    ),
    "other size": (
        edit(5, pixels=grey(96, 96)),
        {"width", "height"},
        ["48 pixels wide", "48 pixels high", "train/angry/5.png (96)"],
    ),
    "colour": (
        edit(5, mode="RGB"),
        {"grey"},
        ["every image is grey (mode L)", "train/angry/5.png (RGB)"],
    ),
    "empty test split": (
        lambda images: [one for one in images if one.split != "test"],
        {"splits_present", "min_rows"},
        ["the splits train and test hold images", "test: 0", "the split is empty or absent"],
    ),
    "unknown split": (
        edit(0, split="holdout"),
        {"splits_known"},
        ["belongs to train, validation or test", "train/angry/0.png (holdout)"],
    ),
    "blank image": (
        edit(8, pixels=np.zeros((48, 48), np.uint8)),
        {"blanks"},
        ["at most 0 images are blank", "train/disgust/2.png", "raise validate.max_blanks"],
    ),
    "duplicate": (
        lambda images: [*images, replace(images[0], name="train/angry/copy.png")],
        {"duplicates"},
        ["redundant exact copies", "1 image, 1.41%", "train/angry/copy.png"],
    ),
    "conflicting labels": (
        lambda images: [*images, replace(images[0], name="train/sad/copy.png", label="sad")],
        {"duplicates", "conflicting"},
        ["exact copy under another label", "2 images", "train/angry/0.png (angry)", "max_confl"],
    ),
    "too dark": (
        lambda images: [
            replace(one, pixels=one.pixels // 2 if one.pixels is not None else None)
            if one.split == "test"
            else one
            for one in images
        ],
        {"mean_grey", "grey_spread"},
        ["mean grey level of each split lies within 100 to 160", "test: 6", "validate.mean_grey"],
    ),
    "lopsided classes": (
        lambda images: images + [
            replace(one, name=f"{one.name}.more", pixels=255 - one.pixels)
            for one in images
            if one.label == "happy" and one.split == "train" and one.pixels is not None
        ] + [
            SourceImage(f"train/happy/more{i}.png", "train", "happy",
                        np.random.default_rng(50 + i).integers(0, 220, (48, 48), dtype=np.uint8))
            for i in range(12)
        ],
        {"class_share"},
        ["each expression is 5.0% to 30.0% of its split", "train/happy: 24 (40.0%)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_stops_the_gate_and_says_what_to_do(name: str, tmp_path: Path) -> None:
    change, keys, phrases = BREACHES[name]
    with pytest.raises(ValidationError) as error:
        gate(tmp_path, change(sound()))
    message = str(error.value)
    assert [phrase for phrase in phrases if phrase not in message] == []
    # Report and Data Docs are there all the same, and the message leads to them.
    assert failed(tmp_path) == keys
    assert document(tmp_path)["passed"] is False
    assert f"found {len(keys)} breach" in message
    assert str(tmp_path / "out" / "data_docs" / "index.html") in message
    index = (tmp_path / "out" / "data_docs" / "index.html").read_text()
    assert index.count("&#10007; failed") == len(keys)


def test_great_expectations_counts_what_the_message_counts(tmp_path: Path) -> None:
    """The offenders we name are those that Great Expectations found, no more and no fewer."""
    images = sound()
    images[1] = replace(images[1], pixels=grey(48, 50))
    images[9] = replace(images[9], pixels=grey(48, 50) // 2)
    images[20] = replace(images[20], pixels=grey(40, 40))
    with pytest.raises(ValidationError, match=r"3 images: .*train/disgust/3"):
        gate(tmp_path, images)
    page = next((tmp_path / "out" / "data_docs" / "validations" / "images").rglob("*.html"))
    assert "3 unexpected values found" in page.read_text()


def test_names_at_most_three_offenders(tmp_path: Path) -> None:
    images = [replace(one, mode="RGB") if one.label == "sad" else one for one in sound()]
    with pytest.raises(ValidationError) as error:
        gate(tmp_path, images)
    assert "10 images: " in str(error.value)
    assert str(error.value).count("(RGB)") == 3
    assert ", ..." in str(error.value)


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    images = [replace(one, pixels=None, mode=None, problem="no image") for one in sound()]
    with pytest.raises(ValidationError, match="70 images"):
        gate(tmp_path, images)
    assert failed(tmp_path) == {"readable"}


def test_only_unknown_splits(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="train: 0, test: 0"):
        gate(tmp_path, [replace(one, split="valid") for one in sound()])


def test_names_twice(tmp_path: Path) -> None:
    images = sound()
    images[1] = replace(images[1], name=images[0].name)
    with pytest.raises(ValidationError, match=r"names are unique\. Found 2 images"):
        gate(tmp_path, images)


def test_altered_pixels(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "images.parquet"
    write_source(path, sound())
    table = read_source(path)
    pixels = table["pixels"].to_pylist()
    pixels[0] = pixels[0][:-1]
    table = table.set_column(table.column_names.index("pixels"), "pixels", pa.array(pixels))
    pq.write_table(table, path)
    with pytest.raises(ValidationError):
        run_gate(path, params(), tmp_path / "out")
    assert failed(tmp_path) == {"one_byte_per_pixel", "digest"}


def test_a_missing_column_is_the_only_thing_said(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "images.parquet"
    write_source(path, sound())
    pq.write_table(read_source(path).drop_columns(["label"]), path)
    with pytest.raises(ValidationError, match="label: string is missing"):
        run_gate(path, params(), tmp_path / "out")
    assert failed(tmp_path) == {"schema"}
    assert len(document(tmp_path)["expectations"]) == 1


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError):
        run_gate(tmp_path / "none.parquet", params(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_twins_across_splits_are_counted_and_warned_of(tmp_path: Path) -> None:
    images = sound()
    images[-1] = replace(images[-1], pixels=images[40].pixels)
    report = gate(tmp_path, images, max_duplicate_share=0.05)
    assert report.passed
    assert [one.key for one in report.warnings] == ["twins"]
    assert report.summary["twins"] == {"validation": 0, "test": 1}
    assert "&#9888; warned" in report.docs.read_text()


def test_same_input_same_report(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        gate(tmp_path / name, sound())
    first, second = ((tmp_path / n / "out" / "validation.json").read_bytes() for n in "ab")
    assert first == second
    assert str(tmp_path).encode() not in first


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        gate(tmp_path, sound()[1:], min_rows={"train": 42, "test": 1})
    pages = set((tmp_path / "out" / "data_docs").rglob("*.html"))
    gate(tmp_path, sound())
    after = set((tmp_path / "out" / "data_docs").rglob("*.html"))
    assert len(pages) == len(after)
    assert failed(tmp_path) == set()


class _Divisions(HTMLParser):
    """Depth of nested <div>; negative or unequal to 0 at the end where cut in the wrong place."""

    depth = 0
    lowest = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.depth += tag == "div"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "div"
        self.lowest = min(self.lowest, self.depth)


def test_data_docs_work_offline_and_run_no_stranger_s_script(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=https://evil.example/x.png>.png"
    images = sound()
    images[0] = replace(images[0], name=hostile, label=hostile, split=hostile, mode="RGB")
    with pytest.raises(ValidationError):
        gate(tmp_path, images)
    site = tmp_path / "out" / "data_docs"
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 9  # the index; a suite and a result for each of four frames
    for page in pages:
        text = page.read_text()
        assert "default-src 'none'" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        parser = _Divisions()
        parser.feed(text)
        assert (parser.depth, parser.lowest) == (0, 0), page
        for link in set(_links(text)):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert target.is_file(), f"{page}: {link}"
    index = (site / "index.html").read_text()
    assert "<script" not in index
    assert "&lt;script&gt;alert(1)" in index
    # What the escaped name says is text, and no reference.
    said = [one for one in remote_references(site) if "src=https://evil.example" not in one]
    assert said == []
    assert not (site / "static").exists()


def _links(text: str) -> list[str]:
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "a":
                found.extend(v for k, v in attrs if k == "href" and v and not v.startswith("#"))

    Links().feed(text)
    return found


def test_drawn_faces_pass_with_the_bounds_of_fer2013(tmp_path: Path) -> None:
    from fer.dataset.synthetic import synthetic_dataset

    bounds = load_params(ROOT / "params.yaml").validate_
    report = gate(
        tmp_path,
        list(synthetic_dataset(20, 0.03, 2013)),
        **{**bounds.model_dump(), "min_rows": {"train": 100, "test": 14}},
    )
    assert report.summary["blanks"] == {"all_black": 1, "total": 1}
    assert report.summary["duplicates"]["redundant"] == 4
    assert report.summary["twins"] == {"validation": 0, "test": 2}


@pytest.mark.shared
@pytest.mark.slow
def test_the_real_fer2013(shared: Path, tmp_path: Path) -> None:
    from fer.dataset.sources.archive import read_archive

    path = tmp_path / "images.parquet"
    assert (
        write_source(path, read_archive(shared / "data" / "fer2013.zip", lambda *_: None)) == 35887
    )
    report = run_gate(path, load_params(ROOT / "params.yaml").validate_, tmp_path / "out")
    assert report.summary["duplicates"] == {"redundant": 1853, "groups": 1516, "share": 0.051634}
    assert report.summary["conflicting"] == {"images": 160, "groups": 57}
    assert report.summary["blanks"] == {"all_black": 12, "total": 13}
    assert report.summary["twins"] == {"validation": 280, "test": 288}
    assert {k: v["total"] for k, v in report.summary["rows"].items() if k != "total"} == {
        "train": 28709,
        "validation": 3589,
        "test": 3589,
    }
    assert [one.key for one in report.warnings] == ["twins"]
