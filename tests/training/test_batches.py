"""The order of training images: decided by seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import TrainingError
from fer.training.batches import EpochBatches


def numbered(count: int) -> np.ndarray:
    """Images whose first two pixels hold their number."""
    pixels = np.zeros((count, 48, 48), np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return pixels


def order(count: int, batch_size: int, seed: int, epoch: int) -> list[int]:
    labels = (np.arange(count) % 7).astype(np.int8)
    batches = EpochBatches(numbered(count), labels, batch_size=batch_size, seed=seed, epoch=epoch)
    found: list[int] = []
    for pixels, given_labels in batches:
        assert pixels.shape == (batch_size, 48, 48, 1)
        assert pixels.dtype == np.uint8
        assert given_labels.dtype == np.float32
        assert (given_labels.sum(axis=1) == 1).all()
        numbers = pixels[:, 0, :2, 0].astype(int) @ [1, 256]
        assert (given_labels.argmax(axis=1) == numbers % 7).all(), "labels stay with their images"
        found += numbers.tolist()
    assert len(found) == len(batches) * batch_size
    return found


@given(st.integers(1, 400), st.integers(1, 70), st.integers(0, 2**31 - 1), st.integers(0, 200))
def test_every_image_at_most_once_and_only_a_short_batch_is_left_out(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    if count < batch_size:
        with pytest.raises(TrainingError, match=r"Lower train\.batch_size"):
            order(count, batch_size, seed, epoch)
        return
    found = order(count, batch_size, seed, epoch)
    assert len(set(found)) == len(found)
    assert count - len(found) == count % batch_size


def test_seed_and_epoch_decide_the_order() -> None:
    first = order(100, 10, seed=1, epoch=1)
    assert order(100, 10, seed=1, epoch=1) == first
    assert order(100, 10, seed=1, epoch=2) != first
    assert order(100, 10, seed=2, epoch=1) != first
    # Not the sum or another mixture of both: (1, 2) and (2, 1) are different epochs.
    assert order(100, 10, seed=1, epoch=2) != order(100, 10, seed=2, epoch=1)


def test_the_images_left_out_change_from_epoch_to_epoch() -> None:
    missing = [set(range(19)) - set(order(19, 10, seed=0, epoch=epoch)) for epoch in range(4)]
    assert len({frozenset(one) for one in missing}) > 1


def test_iterating_twice_gives_the_same_epoch() -> None:
    batches = EpochBatches(numbered(20), np.zeros(20, np.int8), batch_size=4, seed=3, epoch=1)
    first = [pixels.tobytes() for pixels, _ in batches]
    assert [pixels.tobytes() for pixels, _ in batches] == first


@given(st.floats(0.05, 2), st.integers(0, 2**31 - 1))
def test_mixup_blends_images_and_labels_in_one_proportion(alpha: float, seed: int) -> None:
    pixels = np.zeros((14, 48, 48), np.uint8)
    pixels[7:] = 200
    labels = np.repeat(np.array([2, 5], np.int8), 7)
    batches = EpochBatches(pixels, labels, batch_size=14, seed=seed, epoch=3, mixup=alpha)
    mixed, shares = batches[0]
    plain, own = EpochBatches(pixels, labels, batch_size=14, seed=seed, epoch=3)[0]
    assert mixed.dtype == np.uint8
    assert np.allclose(shares.sum(axis=1), 1)
    assert (shares.argmax(axis=1) == own.argmax(axis=1)).all(), "the larger share is its own"
    assert np.abs(mixed[:, 0, 0, 0] - 200 * shares[:, 5]).max() <= 0.51
    again, _ = batches[0]
    assert (again == mixed).all()
    if alpha > 0.5:
        assert (mixed != plain).any()


def test_there_is_no_batch_beyond_the_last() -> None:
    batches = EpochBatches(numbered(20), np.zeros(20, np.int8), batch_size=4, seed=3, epoch=1)
    for step in (-1, 5):
        with pytest.raises(IndexError):
            batches[step]


def test_no_images() -> None:
    with pytest.raises(TrainingError, match="0 training images"):
        EpochBatches(numbered(0), np.zeros(0, np.int8), batch_size=1, seed=0, epoch=0)
