from __future__ import annotations

import numpy as np
import pytest

from fer.dataset.synthetic import draw_face
from fer.evaluation.corruptions import CORRUPTIONS, Corruption
from fer.expressions import Expression


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([draw_face(one, rng) for one in Expression for _ in range(2)])


def named(kind: str, level: str = "") -> Corruption:
    (found,) = [one for one in CORRUPTIONS if one.kind == kind and level in one.level]
    return found


def detail(faces: np.ndarray) -> float:
    """Mean difference between neighbouring pixels."""
    return float(np.abs(np.diff(faces.astype(int), axis=2)).mean())


@pytest.mark.parametrize("one", CORRUPTIONS, ids=lambda one: f"{one.kind} {one.level}")
def test_each_changes_faces_the_same_way_every_time(one: Corruption, drawn: np.ndarray) -> None:
    before = drawn.copy()
    first = one.apply(drawn, 3)
    assert (first.shape, first.dtype) == (drawn.shape, np.dtype(np.uint8))
    assert (first != drawn).mean() > 0.05
    np.testing.assert_array_equal(first, one.apply(drawn, 3))
    np.testing.assert_array_equal(drawn, before)


def test_names_are_unique() -> None:
    assert len({(one.kind, one.level) for one in CORRUPTIONS}) == len(CORRUPTIONS)


def test_seeds_move_only_what_is_random(drawn: np.ndarray) -> None:
    moved = {one.kind for one in CORRUPTIONS if (one.apply(drawn, 1) != one.apply(drawn, 2)).any()}
    assert moved == {"noise", "shift of the crop"}


@pytest.mark.parametrize("kind", ["blur", "JPEG", "low resolution"])
def test_the_second_strength_takes_more(kind: str, drawn: np.ndarray) -> None:
    weak, strong = (one for one in CORRUPTIONS if one.kind == kind)
    lost = [np.abs(one.apply(drawn, 0).astype(int) - drawn).mean() for one in (weak, strong)]
    assert 0 < lost[0] < lost[1]
    if kind != "JPEG":
        assert detail(strong.apply(drawn, 0)) < detail(weak.apply(drawn, 0)) < detail(drawn)


def test_noise_has_the_deviation_that_it_says() -> None:
    grey = np.full((20, 48, 48), 128, np.uint8)
    for share in (5, 10):
        noisy = named("noise", f"{share} %").apply(grey, 0).astype(float)
        assert noisy.std() == pytest.approx(share / 100 * 255, rel=0.03)
        assert noisy.mean() == pytest.approx(128, abs=0.5)


def test_low_resolution_leaves_no_more_than_it_says() -> None:
    stripes = np.zeros((1, 48, 48), np.uint8)
    stripes[:, :, ::2] = 200
    # Stripes of one pixel cannot be told apart at half the resolution.
    assert named("low resolution", "24").apply(stripes, 0).std() < 1
    np.testing.assert_array_equal(
        named("low resolution", "24").apply(np.full_like(stripes, 77), 0), 77
    )


def test_shift_moves_by_the_length_that_it_says() -> None:
    spot = np.zeros((40, 48, 48), np.uint8)
    spot[:, 22:26, 22:26] = 255
    for share in (5, 10):
        moved = named("shift of the crop", f"{share} %").apply(spot, 0).astype(float)
        places = np.arange(48)
        centres = np.stack(
            [
                (moved.sum(axis=axis) * places).sum(axis=1) / moved.sum(axis=(1, 2))
                for axis in (1, 2)
            ]
        )
        lengths = np.hypot(*(centres - 23.5))
        np.testing.assert_allclose(lengths, share / 100 * 48, atol=0.05)
        # Each in a direction of its own.
        assert np.unique(centres.round(1), axis=1).shape[1] > 20


def test_scale_keeps_the_centre_and_changes_the_size() -> None:
    square = np.zeros((1, 48, 48), np.uint8)
    square[:, 12:36, 12:36] = 255
    for factor in (0.85, 1.15):
        scaled = named("scale of the crop", str(factor)).apply(square, 0)[0].astype(float)
        assert scaled.sum() / 255 == pytest.approx((24 * factor) ** 2, rel=0.04)
        np.testing.assert_allclose(scaled, scaled[::-1, ::-1], atol=3)


def test_light_and_contrast_do_what_they_say() -> None:
    faces = np.full((1, 48, 48), 100, np.uint8)
    faces[:, :24] = 140
    assert np.unique(named("brightness", "less").apply(faces, 0)).tolist() == [36, 76]
    assert np.unique(named("brightness", "more").apply(faces, 0)).tolist() == [164, 204]
    assert np.unique(named("contrast", "half of").apply(faces, 0)).tolist() == [110, 130]
    assert np.unique(named("contrast", "one and").apply(faces, 0)).tolist() == [90, 150]
    white = np.full((1, 48, 48), 250, np.uint8)
    assert named("brightness", "more").apply(white, 0).max() == 255
