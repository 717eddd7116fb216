"""Augmentation: what each parameter changes, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fer.dataset.synthetic import draw_face
from fer.expressions import Expression
from fer.params import AugmentParams

pytestmark = pytest.mark.slow  # TensorFlow starts

Images = NDArray[np.float32]

_NOTHING: dict[str, Any] = {
    "flip": False,
    "shift": 0,
    "scale": 0,
    "rotation": 0,
    "brightness": 0,
    "contrast": 0,
    "far": 0,
    "noise": 0,
    "erase": 0,
    "erase_area": (0.02, 0.2),
}
_EXTREME: dict[str, Any] = {
    "flip": True,
    "shift": 0.5,
    "scale": 0.5,
    "rotation": 45,
    "brightness": 1,
    "contrast": 0.99,
    "far": 1,
    "noise": 1,
    "erase": 1,
    "erase_area": (0, 1),
}
_SIDE = 48
_CENTRE = (_SIDE - 1) / 2


def augment(
    images: NDArray[Any], seed: int = 1, training: bool = True, calls: int = 1, **params: Any
) -> Images:
    """The images after the layer, which does only what `params` ask for."""
    from fer.training.augmentation import FaceAugmentation

    layer = FaceAugmentation(AugmentParams(**{**_NOTHING, **params}), seed)
    for _ in range(calls):
        found = np.asarray(layer(images, training=training))
    return found


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    drawn = [draw_face(expression, rng) for expression in Expression]
    return np.stack(drawn)[..., None]


def spots(count: int, x: float, y: float, size: float = 2.5) -> Images:
    """One bright spot on black, `x` and `y` px from the centre."""
    grid_y, grid_x = np.mgrid[:_SIDE, :_SIDE] - _CENTRE
    image = 200 * np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * size**2))
    return np.repeat(image[None, ..., None], count, axis=0).astype(np.float32)


def places(images: Images) -> NDArray[np.float64]:
    """(n, 2): x and y of each spot from the centre."""
    grid_y, grid_x = np.mgrid[:_SIDE, :_SIDE] - _CENTRE
    weights = images[..., 0] / images.sum(axis=(1, 2, 3))[:, None, None]
    return np.stack([(weights * grid_x).sum((1, 2)), (weights * grid_y).sum((1, 2))], axis=1)


def test_nothing_happens_when_predicting(faces: NDArray[np.uint8]) -> None:
    found = augment(faces, training=False, **_EXTREME)
    assert found.dtype == np.float32
    assert (found == faces).all()


def test_nothing_happens_where_nothing_is_asked_for(faces: NDArray[np.uint8]) -> None:
    assert np.abs(augment(faces) - faces).max() < 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_extremes_stay_grey_levels_of_the_same_shape(faces: NDArray[np.uint8], seed: int) -> None:
    many = np.repeat(faces, 8, axis=0)
    found = augment(many, seed=seed, **_EXTREME)
    assert found.shape == many.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize("level", [0, 255])
def test_a_flat_image_stays_flat_when_moved(level: int) -> None:
    """The border is mirrored, so nothing dark comes in from outside."""
    flat = np.full((16, _SIDE, _SIDE, 1), level, np.uint8)
    found = augment(flat, flip=True, shift=0.5, scale=0.5, rotation=45)
    assert np.abs(found - level).max() < 1e-2


def test_seed_and_number_of_the_call_decide(faces: NDArray[np.uint8]) -> None:
    first = augment(faces, seed=7, **_EXTREME)
    assert (augment(faces, seed=7, **_EXTREME) == first).all()
    assert (augment(faces, seed=8, **_EXTREME) != first).any()
    assert (augment(faces, seed=7, calls=2, **_EXTREME) != first).any()


@pytest.mark.parametrize(
    "only",
    [
        {"shift": 0.1},
        {"scale": 0.15},
        {"rotation": 12},
        {"brightness": 0.15},
        {"contrast": 0.25},
        {"erase": 1},
    ],
    ids=lambda only: next(iter(only)),
)
def test_each_image_of_a_batch_is_changed_in_its_own_way(
    faces: NDArray[np.uint8], only: dict[str, float]
) -> None:
    found = augment(np.repeat(faces[:1], 12, axis=0), **only)
    assert len({image.tobytes() for image in found}) == 12


def test_a_flip_is_the_exact_mirror_of_about_half_the_images(
    faces: NDArray[np.uint8],
) -> None:
    many = np.repeat(faces, 20, axis=0)
    found = augment(many, flip=True)
    mirrored = np.abs(found - many[:, :, ::-1]).max(axis=(1, 2, 3)) < 1e-3
    kept = np.abs(found - many).max(axis=(1, 2, 3)) < 1e-3
    assert (mirrored ^ kept).all()
    assert 45 <= mirrored.sum() <= 95  # of 140: four standard deviations


def test_a_shift_moves_the_whole_image_by_at_most_the_share() -> None:
    from scipy.ndimage import shift

    before = spots(60, 0, 0)
    after = augment(before, shift=0.1)
    moved = places(after)
    assert np.abs(moved).max() <= 0.1 * _SIDE + 0.01
    assert np.abs(moved).max(axis=0).min() > 0.08 * _SIDE, "both ways, nearly to the limit"
    assert (moved.min(axis=0) < -2).all()
    assert (moved.max(axis=0) > 2).all()
    for image, (x, y) in zip(after[:10], moved[:10], strict=True):
        # The same shift by another library: linear between pixels, mirrored at the border.
        expected = shift(before[0, ..., 0], (y, x), order=1, mode="reflect")
        assert np.abs(image[..., 0] - expected).max() < 0.5


def test_a_rotation_turns_about_the_centre() -> None:
    before = spots(60, 12, 0)
    moved = places(augment(before, rotation=12))
    angle = np.degrees(np.arctan2(moved[:, 1], moved[:, 0]))
    assert np.abs(np.hypot(*moved.T) - 12).max() < 0.1
    assert np.abs(angle).max() <= 12.1
    assert angle.min() < -9
    assert angle.max() > 9


def test_a_scale_keeps_the_centre_and_the_aspect() -> None:
    right, low = (
        places(augment(spots(60, *where), scale=0.15)) for where in [(12.0, 0.0), (0.0, 12.0)]
    )
    factor = right[:, 0] / 12
    assert 0.84 < factor.min() < 0.9
    assert 1.1 < factor.max() < 1.16
    assert np.abs(right[:, 1]).max() < 0.05
    assert np.abs(low[:, 1] - right[:, 0]).max() < 0.05, "as much downwards as sideways"


def test_brightness_adds_the_same_to_every_pixel(faces: NDArray[np.uint8]) -> None:
    middle = (100 + faces.astype(np.float32) / 10).repeat(8, axis=0)  # far from both ends
    added = augment(middle, brightness=0.15) - middle
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-3
    each = added[:, 0, 0, 0]
    assert np.abs(each).max() <= 0.15 * 255 + 1e-3
    assert each.min() < -25
    assert each.max() > 25


def test_contrast_keeps_the_mean(faces: NDArray[np.uint8]) -> None:
    middle = (100 + faces.astype(np.float32) / 10).repeat(8, axis=0)
    found = augment(middle, contrast=0.25)
    assert np.abs(found.mean((1, 2, 3)) - middle.mean((1, 2, 3))).max() < 1e-2
    factor = found.std((1, 2, 3)) / middle.std((1, 2, 3))
    assert 0.749 < factor.min() < 0.8
    assert 1.2 < factor.max() < 1.251


def test_distance_takes_detail_and_leaves_light(faces: NDArray[np.uint8]) -> None:
    stripes = np.zeros((40, _SIDE, _SIDE, 1), np.float32)
    stripes[:, :, ::2] = 200
    found = augment(stripes, far=1)
    left = found.std(axis=(1, 2, 3)) / stripes.std(axis=(1, 2, 3))
    assert (left <= 1.001).all()
    assert left.min() < 0.3, "some are far"
    assert left.max() > 0.7, "some are near"
    assert np.allclose(found.mean(axis=(1, 2, 3)), 100, atol=1)
    some = augment(np.repeat(faces[:1], 400, axis=0), far=0.25)
    changed = np.abs(some - faces[:1]).max(axis=(1, 2, 3)) > 0.5
    assert 0.15 < changed.mean() < 0.35


def test_noise_is_of_another_strength_in_each_image() -> None:
    flat = np.full((200, _SIDE, _SIDE, 1), 128, np.float32)
    spread = augment(flat, noise=0.05).std(axis=(1, 2, 3)) / 255
    assert spread.max() < 0.053
    assert spread.min() < 0.01
    assert 0.02 < spread.mean() < 0.03
    assert np.allclose(augment(flat, noise=0.05).mean(), 128, atol=0.2)


def test_erasing_covers_one_rectangle_with_one_grey_level() -> None:
    # Black and white alone: no level that is drawn can be among them.
    rng = np.random.default_rng(0)
    before = 255 * rng.integers(0, 2, (64, _SIDE, _SIDE, 1)).astype(np.float32)
    after = augment(before, erase=1, erase_area=(0.1, 0.1))
    erased = (np.abs(after - before) > 1e-2)[..., 0]
    whole = 0
    for image, changed in zip(after[..., 0], erased, strict=True):
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        inside = np.ix_(rows, columns)
        assert changed[inside].all(), "a rectangle"
        assert np.ptp(rows) + 1 == len(rows)
        assert np.ptp(columns) + 1 == len(columns)
        assert np.ptp(image[inside]) == 0, "of one grey level"
        touches = {rows[0], columns[0]} & {0} or {rows[-1], columns[-1]} & {_SIDE - 1}
        if not touches:
            whole += 1
            assert len(rows) * len(columns) == pytest.approx(0.1 * _SIDE**2, rel=0.2)
            assert 0.45 < len(rows) / len(columns) < 2.2
    assert whole > 5
    levels = {
        float(image[changed][0]) for image, changed in zip(after[..., 0], erased, strict=True)
    }
    assert len(levels) > 50


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_the_share_of_erased_images(faces: NDArray[np.uint8], share: float) -> None:
    many = np.repeat(faces, 60, axis=0) * np.float32(0.9) + np.float32(0.5)
    found = augment(many, erase=share, erase_area=(0.1, 0.2))
    erased = (np.abs(found - many).max(axis=(1, 2, 3)) > 1e-3).mean()
    assert erased == pytest.approx(share, abs=0.0 if share in (0, 1) else 0.085)


def test_it_works_inside_a_compiled_graph_with_any_batch(faces: NDArray[np.uint8]) -> None:
    """As in training: traced once, for a batch whose size is not known."""
    import tensorflow as tf

    from fer.training.augmentation import FaceAugmentation

    layer = FaceAugmentation(AugmentParams(**{**_NOTHING, **_EXTREME}), 5)
    signature = [tf.TensorSpec((None, _SIDE, _SIDE, 1), tf.uint8)]
    graph = tf.function(lambda images: layer(images, training=True), signature)
    assert graph(faces[:3]).shape == (3, _SIDE, _SIDE, 1)
    first, second = (graph(faces).numpy() for _ in range(2))
    assert first.shape == faces.shape
    assert (first != second).any(), "the graph does not freeze the random numbers"
