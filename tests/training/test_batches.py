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


@given(st.floats(0, 1), st.sampled_from([0.0, 0.4]), st.integers(0, 2**31 - 1))
def test_cutmix_labels_follow_the_pixels(cutmix: float, mixup: float, seed: int) -> None:
    pixels = np.zeros((14, 48, 48), np.uint8)
    pixels[7:] = 250
    labels = np.repeat(np.array([2, 5], np.int8), 7)
    batches = EpochBatches(
        pixels, labels, batch_size=14, seed=seed, epoch=3, mixup=mixup, cutmix=cutmix
    )
    mixed, shares = batches[0]
    plain, own = EpochBatches(pixels, labels, batch_size=14, seed=seed, epoch=3)[0]
    assert np.allclose(shares.sum(axis=1), 1)
    assert (shares.max(axis=1) >= 0.5 - 1e-6).all(), "at least half is its own"
    assert np.abs(mixed.mean(axis=(1, 2, 3)) / 250 - shares[:, 5]).max() < 0.003
    if not cutmix and not mixup:
        assert (mixed == plain).all()
        assert (shares == own).all()
    if cutmix == 1:
        assert set(np.unique(mixed)) <= {0, 250}, "nothing is blended"


def test_half_of_the_images_are_patched() -> None:
    count = 2000
    pixels = np.where(np.arange(count)[:, None, None] % 2, 250, 0).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (count, 48, 48))
    labels = (np.arange(count) % 2).astype(np.int8)
    options = {"batch_size": count, "seed": 1, "epoch": 1}
    (_, own) = EpochBatches(pixels, labels, **options)[0]
    (mixed, shares) = EpochBatches(pixels, labels, **options, cutmix=0.5)[0]
    other = np.roll(own, 1, axis=0)
    differs = (own != other).any(axis=1)
    patched = np.abs(shares - own).max(axis=1) > 0
    assert 0.45 < patched[differs].mean() < 0.52, "a few squares hold no pixel"
    assert not patched[~differs].any()
    taken = 1 - shares.max(axis=1)[patched]
    assert taken.max() <= 0.52
    assert 0.1 < taken.mean() < 0.25
    assert ((mixed == 0) | (mixed == 250)).all()


def test_without_cutmix_a_batch_is_mixup_alone_to_the_byte() -> None:
    """What trainings without cutmix computed stays what they compute."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (64, 48, 48), np.uint8)
    labels = generator.integers(0, 7, 64).astype(np.int8)
    options = {"batch_size": 16, "seed": 1, "epoch": 2}
    plain = EpochBatches(pixels, labels, **options)
    for step, (mixed, shares) in enumerate(EpochBatches(pixels, labels, **options, mixup=0.2)):
        images, own = plain[step]
        part = np.random.default_rng((1, 2, step)).beta(0.2, 0.2, 16).astype(np.float32)
        part = np.maximum(part, 1 - part)[:, None]
        assert (shares == part * own + (1 - part) * np.roll(own, 1, axis=0)).all()
        part = part[..., None, None]
        blended = part * images + (1 - part) * np.roll(images, 1, axis=0)
        assert (mixed == np.rint(blended).astype(np.uint8)).all()


def test_there_is_no_batch_beyond_the_last() -> None:
    batches = EpochBatches(numbered(20), np.zeros(20, np.int8), batch_size=4, seed=3, epoch=1)
    for step in (-1, 5):
        with pytest.raises(IndexError):
            batches[step]


def test_no_images() -> None:
    with pytest.raises(TrainingError, match="0 training images"):
        EpochBatches(numbered(0), np.zeros(0, np.int8), batch_size=1, seed=0, epoch=0)
