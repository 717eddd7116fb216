"""The competition's tables, as published and as they come damaged."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from facefiles import csv_row, noise, silent, sound_csv, write_csv
from hypothesis import given
from hypothesis import strategies as st

from fer.dataset.sources.competition import read_competition
from fer.dataset.table import SourceImage
from fer.errors import SourceError
from fer.expressions import EXPRESSIONS


def read(path: Path) -> list[SourceImage]:
    return list(read_competition(path, silent))


def test_every_row_is_an_image_named_by_usage_and_number(tmp_path: Path) -> None:
    images = read(sound_csv(tmp_path / "fer2013.csv"))
    assert len(images) == 35
    assert [one.name for one in images[:2]] == ["Training/00000", "Training/00001"]
    assert images[-1].name == "PrivateTest/00034"
    assert {one.split for one in images} == {"train", "validation", "test"}
    assert [one.label for one in images[::3][:7]] == list(EXPRESSIONS)
    assert np.array_equal(images[0].pixels, noise(0))  # type: ignore[arg-type]


def test_the_other_publication_has_spaces_and_another_order(tmp_path: Path) -> None:
    pixels = " ".join(map(str, noise(1).ravel()))
    path = write_csv(
        tmp_path / "icml_face_data.csv", [f"3, PublicTest, {pixels}"], "emotion, Usage, pixels"
    )
    (image,) = read(path)
    assert (image.name, image.split, image.label) == ("PublicTest/00000", "validation", "happy")
    assert np.array_equal(image.pixels, noise(1))  # type: ignore[arg-type]


def test_a_byte_order_mark_empty_lines_and_quotes_are_no_matter(tmp_path: Path) -> None:
    row = csv_row(4, noise(1), "Training")
    emotion, pixels, usage = row.split(",")
    path = tmp_path / "fer2013.csv"
    text = f'emotion,pixels,Usage\r\n{row}\r\n\r\n{emotion},"{pixels}",{usage}\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [one.name for one in read(path)] == ["Training/00000", "Training/00001"]


@pytest.mark.parametrize("emotion", ["7", "-1", "", "happy", "3.0", "9" * 5000, "\u0663"])
def test_a_label_out_of_range_becomes_a_class_for_the_gate_to_find(
    tmp_path: Path, emotion: str
) -> None:
    (image,) = read(write_csv(tmp_path / "f.csv", [csv_row(emotion, noise(1), "Training")]))
    assert image.label.startswith("emotion ")
    assert image.label not in EXPRESSIONS
    assert len(image.label) < 60
    assert image.pixels is not None


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        ("1 2 3", "3 pixels, not 2304"),
        ("", "0 pixels, not 2304"),
        (" ".join(["0"] * 2305), "2305 pixels, not 2304"),
        (" ".join(["256"] * 2304), "grey level outside 0..255"),
        (" ".join(["-1"] * 2304), "grey level outside 0..255"),
        (" ".join(["1.5"] * 2304), "pixels are no whole numbers"),
        (" ".join(["x"] * 2304), "pixels are no whole numbers"),
        ("9" * 3000, "pixels are no whole numbers"),
    ],
)
def test_pixels_that_are_none_are_a_row_that_says_so(
    tmp_path: Path, pixels: str, problem: str
) -> None:
    (image,) = read(write_csv(tmp_path / "f.csv", [f"3,{pixels},PrivateTest"]))
    assert (image.pixels, image.problem) == (None, problem)
    assert (image.split, image.label) == ("test", "happy")


def test_a_short_row_and_an_unknown_usage_are_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "f.csv", ["3", csv_row(3, noise(1), "Holdout")])
    short, other = read(path)
    assert short.problem == "1 fields, not 3"
    assert (other.split, other.problem) == ("Holdout", None)


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    for header in ("", "a,b,c", "emotion,pixels", "emotion;pixels;Usage"):
        with pytest.raises(SourceError, match="has no column"):
            read(write_csv(tmp_path / "f.csv", [], header))


@pytest.mark.parametrize(
    "content",
    [
        b"emotion,pixels,Usage\n3,\xff\xfe,Training\n",
        b"\xff\xfee\0m\0o\0",
        b"emotion,pixels,Usage\n3," + b"1 " * 100_000 + b",Training\n",
    ],
)
def test_what_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"f\.csv"):
        read(path)


def test_a_table_longer_than_any_fer2013_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.dataset.sources.competition.MAX_IMAGES", 34)
    with pytest.raises(SourceError, match="over 34 rows"):
        read(sound_csv(tmp_path / "f.csv"))


def test_progress_goes_up_to_the_size(tmp_path: Path) -> None:
    path = sound_csv(tmp_path / "f.csv")
    calls: list[tuple[int, int]] = []
    list(read_competition(path, lambda done, total: calls.append((done, total))))
    assert len(calls) == 35
    assert calls == sorted(calls)
    assert calls[-1][0] <= calls[-1][1] == path.stat().st_size
    assert calls[-1][0] > 0.99 * path.stat().st_size


@given(
    emotion=st.integers(0, 6),
    seed=st.integers(0, 2**32),
    usage=st.sampled_from(["Training", "PublicTest", "PrivateTest"]),
    order=st.permutations(["emotion", "pixels", "Usage"]),
    spaced=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_the_layout_the_image_comes_back(
    tmp_path: Path,
    emotion: int,
    seed: int,
    usage: str,
    order: list[str],
    spaced: bool,
    quoting: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)
    values = {"emotion": emotion, "pixels": " ".join(map(str, pixels.ravel())), "Usage": usage}
    file = io.StringIO()
    writer = csv.writer(file, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow([f" {name}" if spaced else name for name in order])
    writer.writerow([values[name] for name in order])
    (tmp_path / "f.csv").write_text(file.getvalue())
    (image,) = read(tmp_path / "f.csv")
    assert image.label == EXPRESSIONS[emotion]
    assert image.name == f"{usage}/00000"
    assert np.array_equal(image.pixels, pixels)  # type: ignore[arg-type]


@given(
    st.binary(max_size=500)
    | st.text(max_size=300).map(
        lambda text: f"emotion,pixels,Usage\n{text}".encode(errors="replace")
    )
)
def test_any_bytes_are_rows_or_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    try:
        for image in read(path):
            assert (image.pixels is None) == (image.problem is not None)
    except SourceError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right
