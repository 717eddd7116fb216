"""Near copies: found when shifted, noisy or of other light; strangers are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facefiles import Pixels, crop, photo
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fer.dataset.twins import near_twins

SIDE = 48
STRANGERS = np.stack([photo(1000 + seed)[:SIDE, :SIDE] for seed in range(150)])


def found(queries: Any, references: Any, *, shift: int = 5, limit: float = 0.95) -> list[bool]:
    return near_twins(
        np.stack(queries), np.stack(references), correlation=limit, shift=shift
    ).tolist()


def by_definition(
    queries: Pixels, references: Pixels, correlation: float, shift: int
) -> NDArray[np.bool_]:
    """Every pair at every shift, in float64: the definition, and far too slow."""
    result = np.zeros(len(queries), bool)
    for row, query in enumerate(queries.astype(np.float64)):
        for reference in references.astype(np.float64):
            for dy in range(-shift, shift + 1):
                for dx in range(-shift, shift + 1):
                    mine = query[max(dy, 0) : SIDE + min(dy, 0), max(dx, 0) : SIDE + min(dx, 0)]
                    theirs = reference[
                        max(-dy, 0) : SIDE + min(-dy, 0), max(-dx, 0) : SIDE + min(-dx, 0)
                    ]
                    one, other = mine - mine.mean(), theirs - theirs.mean()
                    length = np.sqrt((one**2).sum() * (other**2).sum())
                    if length > 0 and (one * other).sum() > correlation * length:
                        result[row] = True
    return result


shifts = st.integers(-5, 5)


@given(seed=st.integers(0, 10_000), dy=shifts, dx=shifts, light=st.floats(0.6, 1.0))
def test_a_shifted_noisy_darker_copy_is_found(seed: int, dy: int, dx: int, light: float) -> None:
    picture = photo(seed)
    grain = np.random.default_rng(seed).normal(0, 4, (SIDE, SIDE))
    copy = (crop(picture, dy, dx) * light + 10 + grain).clip(0, 255).astype(np.uint8)
    references = [*STRANGERS[:40], crop(picture)]
    assert found([copy], references) == [True]


@given(seed=st.integers(0, 10_000), dy=shifts, dx=shifts)
def test_the_sign_of_a_shift_is_no_matter_and_nor_is_who_asks(seed: int, dy: int, dx: int) -> None:
    picture = photo(seed)
    middle, moved = crop(picture), crop(picture, dy, dx)
    back = crop(picture, -dy, -dx)
    assert found([moved], [middle]) == found([middle], [moved]) == found([back], [middle]) == [True]
    mirrored = [np.fliplr(one) for one in (moved, middle)]
    assert found([mirrored[0]], [mirrored[1]]) == [True]
    upright = [one.T for one in (moved, middle)]
    assert found([upright[0]], [upright[1]]) == [True]


@given(seed=st.integers(0, 10_000))
def test_a_stranger_is_not_found(seed: int) -> None:
    assert found([crop(photo(seed))], STRANGERS) == [False]


@pytest.mark.parametrize(("dy", "dx"), [(8, 0), (-8, 0), (0, 8), (0, -8), (8, -8), (-8, 8)])
def test_a_shift_beyond_the_limit_is_not_found(dy: int, dx: int) -> None:
    picture = photo(7)
    assert found([crop(picture, dy, dx)], [crop(picture)], shift=5) == [False]
    assert found([crop(picture, dy, dx)], [crop(picture)], shift=8) == [True]


@pytest.mark.parametrize("shift", [0, 1, 2, 4, 6])
def test_what_is_found_is_what_the_definition_says(shift: int) -> None:
    rng = np.random.default_rng(shift)
    references = np.stack([crop(photo(seed)) for seed in range(12)])
    queries = []
    for number in range(30):
        # From plain copies to ones that the grain makes strangers: on both sides of the limit.
        dy, dx = rng.integers(-shift - 1, shift + 2, 2)
        grain = rng.normal(0, 2 + number, (SIDE, SIDE))
        copy = crop(photo(number % 12), int(dy), int(dx)) + grain
        queries.append(copy.clip(0, 255).astype(np.uint8))
    batch = np.stack(queries)
    expected = by_definition(batch, references, 0.95, shift)
    assert found(batch, references, shift=shift) == expected.tolist()
    assert 0 < expected.sum() < len(batch)


def test_the_limit_is_exact_where_float32_is_not() -> None:
    # A copy under other light correlates by 1 but for rounding; above 1 nothing does.
    picture = crop(photo(3))
    assert found([picture], [picture], limit=1.0) == [False]
    assert found([picture], [picture], limit=1 - 1e-12) == [True]
    one_off = picture.copy()
    one_off[0, 0] ^= 1
    exact = np.corrcoef(picture.ravel().astype(float), one_off.ravel().astype(float))[0, 1]
    assert found([one_off], [picture], limit=exact - 1e-12, shift=0) == [True]
    assert found([one_off], [picture], limit=exact + 1e-12, shift=0) == [False]


def test_nearly_blank_images_are_judged_exactly() -> None:
    blank = np.full((SIDE, SIDE), 17, np.uint8)
    dot = blank.copy()
    dot[20, 20] = 18
    other = blank.copy()
    other[40, 4] = 18
    frame = dot.copy()
    frame[0] = 255  # flat but for its first row, which a shift leaves out
    moved = np.roll(frame, 3, axis=0)
    moved[:3] = 17
    assert found([blank, dot, other, frame], [blank]) == [False] * 4
    assert found([blank, dot], [dot]) == [False, True]
    assert found([other], [dot]) == by_definition(other[None], dot[None], 0.95, 5).tolist()
    assert found([frame], [moved]) == by_definition(frame[None], moved[None], 0.95, 5).tolist()


def test_one_copy_among_many_like_it_is_found() -> None:
    # More look-alikes at cell level than are compared in full.
    picture = photo(5)
    rng = np.random.default_rng(1)
    alike = [
        (crop(picture) + rng.normal(0, 45, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)
        for _ in range(60)
    ]
    assert found([crop(picture, 2, -3)], [*alike, crop(picture)]) == [True]
    assert found([crop(picture)], alike) == [False]


def test_progress_counts_every_query() -> None:
    calls: list[int] = []
    queries = np.repeat(STRANGERS, 4, axis=0)
    near_twins(queries, STRANGERS[:5], correlation=0.95, shift=1, advance=calls.append)
    assert sum(calls) == len(queries) == 600
    assert len(calls) > 1


def test_nothing_against_anything_is_nothing() -> None:
    none = np.empty((0, SIDE, SIDE), np.uint8)
    assert near_twins(none, STRANGERS, correlation=0.95, shift=5).tolist() == []
    assert near_twins(STRANGERS[:2], none, correlation=0.95, shift=5).tolist() == [False, False]


@pytest.mark.shared
@pytest.mark.slow
def test_on_the_real_dataset_as_many_are_found_as_by_comparing_one_by_one(shared: Path) -> None:
    from fer.dataset.sources.archive import read_archive

    images = sorted(
        read_archive(shared / "data" / "fer2013.zip", lambda done, total: None),
        key=lambda image: image.name,
    )
    test, train = (
        np.stack([one.pixels for one in images if one.split == split and one.pixels is not None])
        for split in ("test", "train")
    )
    found_now = near_twins(test[::8], train, correlation=0.95, shift=5)
    # Counted by the first version, which compared each pair alone; of all test images, 606.
    assert (len(found_now), int(found_now.sum())) == (449, 76)
