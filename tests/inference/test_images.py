"""Every kind of picture comes out upright, grey and whole, or as one clear error."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer.errors import ImageError
from fer.inference.images import from_array, read_image

Encode = Callable[..., bytes]


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("PNG", "RGB", 0.5),
        ("PNG", "L", 0.5),
        ("PNG", "LA", 0.5),
        ("PNG", "RGBA", 0.5),
        ("PNG", "P", 12),
        ("JPEG", "RGB", 3),
        ("JPEG", "L", 3),
        ("JPEG", "CMYK", 3),
        ("WEBP", "RGB", 3),
        ("TIFF", "RGB", 0.5),
        ("TIFF", "CMYK", 1.5),
        ("BMP", "RGB", 0.5),
        ("GIF", "RGB", 5),
        ("PPM", "RGB", 0.5),
        ("AVIF", "RGB", 3),
        ("JPEG2000", "RGB", 2),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_reads_each_format_and_mode(
    astronaut: np.ndarray, encode: Encode, kind: str, mode: str, tolerance: float, colour: bool
) -> None:
    picture = read_image(encode(astronaut, kind, mode=mode), colour=colour)
    assert picture.format == kind
    assert (picture.width, picture.height, picture.reduction) == (512, 512, 1.0)
    assert difference(picture.grey, luma(astronaut)) < tolerance
    if colour:
        assert picture.rgb is not None
        assert picture.rgb.shape == (512, 512, 3)
        if mode not in ("L", "LA"):
            assert difference(picture.rgb, astronaut) < max(6, 1.5 * tolerance)
    else:
        assert picture.rgb is None


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_levels(encode: Encode, kind: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    picture = read_image(encode(levels * 257, kind))
    assert np.array_equal(picture.grey, levels)


def test_transparency_is_laid_over_white(encode: Encode) -> None:
    pixels = np.zeros((10, 20, 4), np.uint8)
    pixels[:, 10:, 3] = 255
    picture = read_image(encode(pixels, "PNG"))
    assert (picture.grey[:, :10] == 255).all()
    assert (picture.grey[:, 10:] == 0).all()
    assert np.array_equal(from_array(pixels).grey, picture.grey)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_undone(
    astronaut: np.ndarray, encode: Encode, turn: int, kind: str
) -> None:
    upright = astronaut[:400, :300]
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[turn]
    stored = Image.fromarray(upright)
    if inverse is not None:
        stored = stored.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = read_image(encode(np.asarray(stored), kind, exif=exif))
    assert (picture.width, picture.height) == (300, 400)
    assert difference(picture.grey, luma(upright)) < 3


def test_a_damaged_exif_block_does_not_spoil_the_pixels(
    astronaut: np.ndarray, encode: Encode
) -> None:
    data = encode(astronaut, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    assert read_image(data).width == 512


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_forty_megapixels_take_bounded_memory(
    tmp_path: Path, astronaut: np.ndarray, encode: Encode, kind: str
) -> None:
    large = np.kron(astronaut, np.ones((15, 15, 1), np.uint8))[:5500, :7300]
    path = tmp_path / "large"
    path.write_bytes(encode(large, kind))
    small = encode(astronaut[:64, :64], kind)
    (tmp_path / "small").write_bytes(small)
    # In a process of its own: the peak is the process's.
    script = (
        "import resource, sys\n"
        "from fer.inference.images import read_image\n"
        "import cv2\n"
        "read_image(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "picture = read_image(sys.argv[2])\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(after - before, picture.width, picture.height, *picture.grey.shape)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "small"), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    growth, *sizes = (int(value) for value in result.stdout.split())
    assert sizes == [7300, 5500, 2750, 3650]
    # 40 MP are 120 MB of RGB and 160 MB as Pillow keeps them; a JPEG is never that large here.
    assert growth < (60_000 if kind == "JPEG" else 260_000)


def test_a_reduced_picture_says_by_how_much(astronaut: np.ndarray, encode: Encode) -> None:
    for kind in ("JPEG", "PNG"):
        picture = read_image(encode(astronaut, kind), keep_side=200)
        assert picture.grey.shape == (256, 256)
        assert (picture.width, picture.height, picture.reduction) == (512, 512, 2.0)
        small = np.asarray(Image.fromarray(luma(astronaut)).reduce(2))
        assert difference(picture.grey, small) < 2


def test_the_size_is_checked_before_anything_is_decoded(encode: Encode) -> None:
    """A header of 20,000 x 20,000 with no pixels behind it: too large, not truncated."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"20000x20000 pixels \(400 megapixels\)"):
            read_image(bomb)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"limit of 0\.001"):
        read_image(encode(np.zeros((50, 50), np.uint8), "PNG"), max_megapixels=0.001)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(
    astronaut: np.ndarray, encode: Encode, kind: str, share: float
) -> None:
    data = encode(astronaut, kind)
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        read_image(data[: int(len(data) * share)], name="x")


def test_a_truncated_progressive_or_reduced_jpeg_is_refused(
    astronaut: np.ndarray, encode: Encode
) -> None:
    data = encode(astronaut, "JPEG", progressive=True)
    for keep_side in (100, 3200):
        with pytest.raises(ImageError, match="truncated"):
            read_image(data[: len(data) * 2 // 3], keep_side=keep_side)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"dear diary", "but text"),
        (b"<!doctype html><html>", "but markup"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "but text"),
        (bytes(1000), "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image|damaged"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_image(data, name="holiday.jpg")
    assert str(caught.value).startswith("holiday.jpg ")


def test_floating_point_levels_are_refused(encode: Encode) -> None:
    with pytest.raises(ImageError, match="floating-point"):
        read_image(encode(np.ones((5, 5), np.float32), "TIFF"))


def test_a_path_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_an_image_error(
    astronaut: np.ndarray, encode: Encode, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]))
    content = bytearray(encode(astronaut[:40, :60], kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = read_image(bytes(content), max_megapixels=1)
    except ImageError:
        return
    assert picture.grey.ndim == 2


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8"):
        from_array(array)


def test_arrays_become_pictures(astronaut: np.ndarray) -> None:
    assert np.array_equal(from_array(luma(astronaut)).grey, luma(astronaut))
    assert np.array_equal(from_array(luma(astronaut)[..., None]).grey, luma(astronaut))
    colour = from_array(astronaut, colour=True)
    assert difference(colour.grey, luma(astronaut)) < 0.6
    assert colour.rgb is not None
    assert np.array_equal(colour.rgb, astronaut)
