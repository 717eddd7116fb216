"""Names say split and class; any bytes at all are an image or a row that says why not."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from facefiles import encoded, noise
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer.dataset.sources.layout import image_of, is_image, label_of, split_of
from fer.expressions import EXPRESSIONS

FACE = encoded(noise(1))


@pytest.mark.parametrize(
    ("name", "split", "label"),
    [
        ("train/happy/1.png", "train", "happy"),
        ("fer2013/Training/Happiness/1.png", "train", "happy"),
        ("val/sad/x.jpg", "validation", "sad"),
        ("valid/anger/x.jpg", "validation", "angry"),
        ("TEST/fearful/x.jpg", "test", "fear"),
        ("PublicTest/surprised/x.png", "validation", "surprise"),
        ("PrivateTest/disgusted/x.png", "test", "disgust"),
        # msambare/fer2013 keeps both halves of the test set in one folder.
        ("test/neutral/PublicTest_123.jpg", "validation", "neutral"),
        ("test/neutral/PrivateTest_123.jpg", "test", "neutral"),
        ("train/neutral/Training_123.jpg", "train", "neutral"),
        # What is not known stays as it is, for the gate to find.
        ("train/contempt/1.png", "train", "contempt"),
        ("holdout/happy/1.png", "holdout", "happy"),
        ("happy/1.png", "unknown", "happy"),
        ("1.png", "unknown", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_a_path_says_split_and_class(name: str, split: str, label: str) -> None:
    image = image_of(name, FACE)
    assert (image.name, image.split, image.label) == (name, split, label)
    assert image.problem is None


def test_the_classes_names_are_their_own() -> None:
    assert [label_of(name.upper()) for name in EXPRESSIONS] == list(EXPRESSIONS)
    assert [split_of(name) for name in ("train", "validation", "test")] == [
        "train", "validation", "test",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("train/happy/1.png", True),
        ("train/happy/1.JPEG", True),
        ("train/happy/1.txt", False),
        ("train/happy/1", False),
        ("train/.hidden/1.png", False),
        ("train/happy/.1.png", False),
        ("__MACOSX/train/happy/1.png", False),
        ("train/happy/Thumbs.db", False),
    ],
)
def test_which_files_are_images(name: str, yes: bool) -> None:
    assert is_image(name) is yes


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_pixels_come_back_from_every_lossless_format(kind: str) -> None:
    pixels = noise(2)
    if kind == "WEBP":
        import io

        file = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(file, kind, lossless=True)
        content = file.getvalue()
    else:
        content = encoded(pixels, kind)
    image = image_of("train/sad/1.png", content)
    assert image.pixels is not None
    assert np.array_equal(image.pixels, pixels)


@pytest.mark.parametrize(("mode", "side"), [("RGB", 48), ("L", 47), ("RGBA", 48), ("P", 224)])
def test_other_sizes_and_colours_are_kept_for_the_gate_to_judge(mode: str, side: int) -> None:
    import io

    file = io.BytesIO()
    Image.fromarray(noise(3, side)).convert(mode).save(file, "PNG")
    image = image_of("train/sad/1.png", file.getvalue())
    assert image.mode == mode
    assert image.pixels is not None
    assert image.pixels.shape == (side, side)
    assert image.pixels.dtype == np.uint8


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_states(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [1025, 12_000, 40_000, 2**31 - 1])
def test_a_picture_that_states_gigantic_sizes_is_not_decoded(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = image_of("train/sad/1.png", png_that_states(side, side))
    assert image.pixels is None
    assert image.problem is not None


def test_a_renamed_document_is_no_image() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n48 48 scale showpage\n"
    image = image_of("train/sad/1.png", postscript)
    assert image.pixels is None
    assert image.problem is not None
    assert image.problem.startswith("unreadable")


@given(cut=st.integers(0, len(FACE) - 100))
def test_a_truncated_file_says_so_the_same_way_each_time(cut: int) -> None:
    image = image_of("train/sad/1.png", FACE[:cut])
    assert image.pixels is None
    assert image.problem is not None
    assert "0x" not in image.problem  # an address in memory
    assert image == image_of("train/sad/1.png", FACE[:cut])


@given(
    name=st.text(max_size=40),
    content=st.binary(max_size=300)
    | st.binary(max_size=200).map(lambda tail: FACE[:30] + tail)
    | st.tuples(st.integers(0, len(FACE) - 1), st.integers(0, 255)).map(
        lambda at: FACE[: at[0]] + bytes([at[1]]) + FACE[at[0] + 1 :]
    ),
)
def test_any_name_and_any_bytes_make_a_row(name: str, content: bytes) -> None:
    image = image_of(name, content)
    assert (image.pixels is None) == (image.problem is not None)
    image.name.encode()
    if image.problem is not None:
        assert "\n" not in image.problem
        assert len(image.problem) < 300


def test_a_name_that_is_no_unicode_is_spelt_out() -> None:
    name = b"train/sad/\xff.png".decode("utf-8", "surrogateescape")
    assert image_of(name, FACE).name == "train/sad/\\udcff.png"
