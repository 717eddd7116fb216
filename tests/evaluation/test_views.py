from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from fer.errors import ParamsError
from fer.evaluation.calibration import AS_TRAINED
from fer.evaluation.views import further_views, predictions, views_section
from fer.params import parse_params


def ramp(n: int = 3, side: int = 48) -> np.ndarray:
    """Faces whose every pixel differs: level = column, plus the face's number."""
    rows = np.arange(side)[:, None] * 2 + np.arange(side)[None]
    return np.stack([rows + number for number in range(n)]).astype(np.uint8)


def test_one_view_is_the_face_alone() -> None:
    assert list(further_views(ramp(), 1)) == []


def test_the_second_of_two_views_is_the_mirror_image() -> None:
    faces = ramp()
    (mirrored,) = further_views(faces, 2)
    np.testing.assert_array_equal(mirrored[:, :, 0], faces[:, :, -1])
    np.testing.assert_array_equal(mirrored[:, :, ::-1], faces)


def test_ten_views_are_five_windows_and_their_mirror_images() -> None:
    faces = ramp()
    views = list(further_views(faces, 10))
    assert [view.shape for view in views] == [(3, 44, 44)] * 10
    windows, mirrored = views[::2], views[1::2]
    for window, image in zip(windows, mirrored, strict=True):
        np.testing.assert_array_equal(window, image[:, :, ::-1])
    # The pixel at a window's corner says where it was cut.
    assert [int(window[0, 0, 0]) for window in windows] == [2 * 2 + 2, 0, 4, 8, 12]


def test_other_numbers_of_views_are_refused() -> None:
    with pytest.raises(ValueError, match="1, 2 or 10 is wanted"):
        list(further_views(ramp(), 3))


@pytest.mark.parametrize("given", ["3", "0", "yes", "two"])
def test_params_know_the_same_numbers(checkout: Path, given: str) -> None:
    document = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    document["evaluate"]["views"] = yaml.safe_load(given)
    with pytest.raises(ParamsError, match=r"evaluate\.views"):
        parse_params(document)


def test_probabilities_are_averaged_not_logits() -> None:
    # The face: surely class 0. Its mirror image: twice as far from everything, for class 1.
    single = np.array([[3.0, 0, 0, 0, 0, 0, 0]], np.float32)
    other = np.array([[-9.0, 6, -9, -9, -9, -9, -9]], np.float32)

    def run(crops: np.ndarray) -> np.ndarray:
        return np.repeat(other, len(crops), axis=0)

    assert predictions(ramp(1), single, 2, AS_TRAINED, run).tolist() == [1]
    # Softened by a temperature, the second view has less to say than the first.
    flat = np.array([[1.0, 1.5, 1, 1, 1, 1, 1]], np.float32)
    assert predictions(ramp(1), single, 2, AS_TRAINED, lambda crops: flat).tolist() == [0]
    # Of ten views none is the face itself.
    assert predictions(ramp(1), single, 10, AS_TRAINED, run).tolist() == [1]


def test_a_section_compares_the_same_images() -> None:
    labels = np.array([0, 1, 2, 3, 4, 5])
    single = np.array([0, 1, 2, 0, 0, 0])
    averaged = np.array([0, 1, 0, 3, 4, 0])
    every, some = np.ones(6, bool), np.arange(6) < 3
    found = views_section(
        2,
        averaged,
        single,
        {"test": (every, labels), "clean": (some, labels), "ferplus": (~every, labels)},
        0.95,
    )
    assert found["count"] == 2
    assert found["test"]["accuracy"] == pytest.approx(4 / 6)
    assert found["test"]["difference"] == pytest.approx(1 / 6)
    assert found["test"]["difference_low"] < 0 < found["test"]["difference_high"]
    assert found["clean"]["difference"] == pytest.approx(-1 / 3)
    assert found["ferplus"] == {"n": 0}
