"""Crops: the right square, replicated edges, the right size; and the quality of crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import UsageError
from fer.faces.crop import crop_face
from fer.faces.detector import Detection
from fer.faces.dlib_detector import DlibHogDetector
from fer.faces.finder import find_faces
from fer.faces.quality import BRIGHTNESS, MAX_POSE, MIN_SHARPNESS, measure


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)


def test_a_box_of_the_crops_size_is_cut_out_unchanged() -> None:
    image = noise(200, 300)
    crop = crop_face(image, Detection(100, 50, 148, 98, 1))
    assert np.array_equal(crop, image[50:98, 100:148])


def test_the_square_is_centred_and_as_long_as_the_longer_side() -> None:
    image = noise(200, 300)
    crop = crop_face(image, Detection(110, 50, 138, 98, 1))  # 28 wide, 48 high, centre (124, 74)
    assert np.array_equal(crop, image[50:98, 100:148])


def test_the_margin_widens_the_square() -> None:
    image = noise(300, 300)
    crop = crop_face(image, Detection(110, 110, 190, 190, 1), margin=0.2)
    expected = cv2.resize(image[102:198, 102:198], (48, 48), interpolation=cv2.INTER_AREA)
    assert np.array_equal(crop, expected)


def test_shrinking_averages_areas_and_enlarging_interpolates() -> None:
    image = noise(300, 300)
    large = crop_face(image, Detection(50, 50, 194, 194, 1))
    blocks = image[50:194, 50:194].reshape(48, 3, 48, 3).mean(axis=(1, 3))
    assert np.abs(large - blocks).max() <= 0.51
    small = crop_face(image, Detection(50, 50, 74, 74, 1))
    expected = cv2.resize(image[50:74, 50:74], (48, 48), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(small, expected)


def test_edges_are_repeated_outside_the_frame() -> None:
    image = noise(100, 100)
    crop = crop_face(image, Detection(-24, -24, 24, 24, 1))
    assert (crop[:24, :24] == image[0, 0]).all()
    assert np.array_equal(crop[24:, 24:], image[:24, :24])
    assert np.array_equal(crop[:24, 24:], np.tile(image[0, :24], (24, 1)))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_tilted_square_is_cut_along_its_sides(turns: int) -> None:
    """By quarter turns, whose result is known to the pixel."""
    image = noise(200, 300)
    box = Detection(100, 50, 148, 98, 1)
    crop = crop_face(image, box, tilt=90.0 * turns)
    assert np.array_equal(crop, np.rot90(image[50:98, 100:148], turns))


def test_a_tilted_square_outside_the_frame_repeats_its_edge() -> None:
    image = noise(100, 100)
    crop = crop_face(image, Detection(-200, -200, -100, -100, 1), tilt=30.0)
    assert (crop == image[0, 0]).all()


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    left=st.floats(-200, 200),
    top=st.floats(-200, 200),
    side=st.floats(0.01, 300),
    margin=st.floats(-0.5, 2),
    tilt=st.just(0.0) | st.floats(-50, 50),
)
def test_any_box_gives_a_crop_of_levels_that_the_image_has(
    height: int, width: int, left: float, top: float, side: float, margin: float, tilt: float
) -> None:
    image = noise(height, width)
    crop = crop_face(image, Detection(left, top, left + side, top + side, 1), margin, tilt=tilt)
    assert crop.shape == (48, 48)
    assert crop.dtype == np.uint8
    assert image.min() <= crop.min() <= crop.max() <= image.max()


@pytest.mark.parametrize(
    ("image", "box"),
    [
        (np.zeros((9, 9, 3), np.uint8), (0, 0, 5, 5)),
        (np.zeros((9, 9), np.float32), (0, 0, 5, 5)),
        (np.zeros((0, 9), np.uint8), (0, 0, 5, 5)),
        (np.zeros((9, 9), np.uint8), (5, 0, 5, 5)),
        (np.zeros((9, 9), np.uint8), (5, 0, 4, 5)),
        (np.zeros((9, 9), np.uint8), (0, 0, float("nan"), 5)),
    ],
)
def test_refuses_what_cannot_be_cropped(image: np.ndarray, box: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        crop_face(image, Detection(*box, 1.0))


def test_quality_measures_and_marks(astronaut: np.ndarray) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    (face,) = find_faces(grey, DlibHogDetector())
    assert face.quality.marks == ()
    assert face.quality.size == max(face.detection.width, face.detection.height)
    assert face.quality.pose is None

    dark = measure((face.crop * 0.2).astype(np.uint8), 91)
    assert dark.brightness < BRIGHTNESS[0]
    assert "dark" in dark.marks
    bright = measure((255 - (255 - face.crop) * 0.2).astype(np.uint8), 91)
    assert "bright" in bright.marks
    blurred = measure(cv2.GaussianBlur(face.crop, (0, 0), 3), 91)
    assert blurred.sharpness < MIN_SHARPNESS
    assert blurred.marks == ("blurred",)
    assert measure(face.crop, 47).marks == ("small",)
    assert measure(face.crop, 91, MAX_POSE + 1).marks == ("turned",)
    assert measure(face.crop, 91, MAX_POSE - 1).marks == ()


def test_faces_of_a_reduced_picture_are_in_the_pixels_of_the_original(
    astronaut: np.ndarray,
) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    (plain,) = find_faces(grey, DlibHogDetector())
    (reduced,) = find_faces(grey, DlibHogDetector(), reduction=4.0)
    assert reduced.detection == plain.detection.scaled(4.0)
    assert reduced.quality.size == 4 * plain.quality.size
    assert np.array_equal(reduced.crop, plain.crop)
