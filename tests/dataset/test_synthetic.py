"""Drawn faces: seeded, seven expressions that can be told apart, found by a real detector."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from fer.dataset.drawing.person import ACTIONS, Actions
from fer.dataset.synthetic import draw_face, draw_scene, synthetic_dataset
from fer.dataset.table import SourceImage, write_source
from fer.expressions import EXPRESSIONS, Expression


@cache
def dataset(seed: int = 7) -> tuple[SourceImage, ...]:
    return tuple(synthetic_dataset(30, 0.05, seed))


def test_same_seed_same_bytes() -> None:
    first = [
        image.pixels.tobytes()
        for image in synthetic_dataset(10, 0.1, 3)
        if image.pixels is not None
    ]
    again = [
        image.pixels.tobytes()
        for image in synthetic_dataset(10, 0.1, 3)
        if image.pixels is not None
    ]
    other = [
        image.pixels.tobytes()
        for image in synthetic_dataset(10, 0.1, 4)
        if image.pixels is not None
    ]
    assert first == again
    assert len(set(first) & set(other)) <= 1  # the blank one


def test_shapes_and_sizes() -> None:
    for size in (32, 48, 100):
        face = draw_face(Expression.SURPRISE, np.random.default_rng(1), size)
        assert face.shape == (size, size)
        assert face.dtype == np.uint8
        assert face.std() > 15


def test_splits_and_names() -> None:
    counts = Counter((image.split, image.label) for image in dataset())
    assert counts == {
        (split, label): count
        for split, count in (("train", 24), ("validation", 3), ("test", 3))
        for label in EXPRESSIONS
    }
    names = [image.name for image in dataset()]
    assert len(set(names)) == len(names)
    assert names[0] == "train/angry/00001"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.2, 1.0])
def test_duplicates_inside_train_and_across(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is the share asked for, and each repeats an image of its own class."""
    # Only who repeats whom matters here, so each stream draws 36 bytes instead of a face.
    monkeypatch.setattr(
        "fer.dataset.synthetic.draw_face",
        lambda _, rng: rng.integers(256, size=(6, 6), dtype=np.uint8),
    )
    seen: dict[bytes, str] = {}
    copies: Counter[str] = Counter()
    for image in synthetic_dataset(40, share, 1):
        assert image.pixels is not None
        if not image.pixels.any():
            continue
        original = seen.setdefault(image.pixels.tobytes(), image.name)
        if original != image.name:
            assert original.startswith(f"train/{image.label}/")
            copies[image.split] += 1
    wanted = round(share * 280)
    most = 7 * (4 + 15)  # the test images and nearly half of train
    assert sum(copies.values()) == min(wanted, most)
    assert copies["validation"] == 0
    if share:
        assert copies["train"] >= copies["test"] > 0


def test_one_blank_image() -> None:
    blanks = [
        image.name for image in dataset() if image.pixels is not None and not image.pixels.any()
    ]
    assert blanks == ["train/neutral/00024"]


def test_written_as_a_source_table(tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_source(tmp_path / "a.parquet", dataset())
    write_source(tmp_path / "b.parquet", synthetic_dataset(30, 0.05, 7))
    digests = {
        hashlib.sha256((tmp_path / f"{one}.parquet").read_bytes()).hexdigest() for one in "ab"
    }
    assert len(digests) == 1


def test_grey_levels_resemble_fer2013() -> None:
    pixels = np.stack([image.pixels for image in dataset() if image.pixels is not None])
    assert 100 < pixels.mean() < 160
    assert 45 < pixels.std() < 85


def faces(seed: int, count: int) -> NDArray[np.float64]:
    """(7, count, features): band-passed pixels of the inner face, of unit variance."""
    import cv2

    rows = []
    for expression in Expression:
        for number in range(count):
            face = draw_face(expression, np.random.default_rng([seed, expression, number]))
            inner = face[6:42, 8:40].astype(np.float64)
            band = cv2.GaussianBlur(inner, (0, 0), 1) - cv2.GaussianBlur(inner, (0, 0), 4)
            rows.append((band - band.mean()).ravel() / (band.std() + 1e-6))
    return np.array(rows).reshape(7, count, -1)


def test_expressions_can_be_told_apart_but_not_by_a_glance() -> None:
    """Ridge regression on 40 faces a class reads most others; class means read fewer."""
    train, test = faces(1, 40), faces(2, 20)
    truth = np.repeat(np.arange(7), 20)
    means = train.mean(1)
    nearest = ((test.reshape(140, 1, -1) - means) ** 2).sum(-1).argmin(1)
    features = train.reshape(280, -1)
    kernel = features @ features.T
    targets = np.repeat(np.eye(7), 40, 0) - 1 / 7
    weights = np.linalg.solve(kernel + 0.1 * np.trace(kernel) / 280 * np.eye(280), targets)
    ridge = (test.reshape(140, -1) @ features.T @ weights).argmax(1)
    assert 0.35 < (nearest == truth).mean() < 0.9  # chance is 0.14
    assert 0.6 < (ridge == truth).mean() < 0.99


def test_a_detector_finds_single_faces() -> None:
    dlib = pytest.importorskip("dlib")
    detector = dlib.get_frontal_face_detector()
    found = 0
    for number in range(100):
        face = draw_face(Expression(number % 7), np.random.default_rng([11, number]), 160)
        found += bool(detector(face, 1))
    assert found >= 60  # all 100 with dlib 20.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_detector_finds_the_faces_of_a_scene(count: int) -> None:
    dlib = pytest.importorskip("dlib")
    import cv2

    rng = np.random.default_rng([5, count])
    scene, boxes = draw_scene([Expression(i) for i in range(count)], rng)
    assert scene.shape == (480, 640, 3)
    assert scene.dtype == np.uint8
    assert len(boxes) == count
    found = dlib.get_frontal_face_detector()(cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY), 1)
    assert len(found) == count
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
        assert 90 <= right - left <= 200
        centres = [(one.center().x, one.center().y) for one in found]
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        assert (
            min(np.linalg.norm(np.array(centre) - middle) for centre in centres)
            < (right - left) / 4
        )


def test_scenes_repeat_with_their_seed() -> None:
    expressions = [Expression.HAPPY, Expression.FEAR]
    first, boxes = draw_scene(expressions, np.random.default_rng(1))
    again, same = draw_scene(expressions, np.random.default_rng(1))
    assert np.array_equal(first, again)
    assert boxes == same


def test_an_empty_scene_has_no_face() -> None:
    scene, boxes = draw_scene([], np.random.default_rng(1), 320, 240)
    assert scene.shape == (240, 320, 3)
    assert boxes == []


def test_actions_show_their_expression() -> None:
    rng = np.random.default_rng(0)
    for expression in Expression:
        for _ in range(50):
            actions = Actions.of(expression, rng)
            assert all(0 <= value <= 1.3 for value in actions.values())
            strongest = {
                unit for unit, peak in ACTIONS[expression].items() if peak >= 1 and unit != "AU25"
            }
            assert all(actions[unit] > 0.3 for unit in strongest)
