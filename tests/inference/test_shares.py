"""Shares: every picture once, in order, about as large as asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import UsageError
from fer.inference.inputs import PictureFile
from fer.inference.shares import SMALLEST, Share, split, weight

SIZES = st.lists(st.one_of(st.integers(0, 4 * SMALLEST), st.integers(0, 1 << 40)), max_size=60)
TARGETS = st.one_of(st.integers(1, 10 * SMALLEST), st.integers(1, 1 << 41))


def listing(sizes: list[int]) -> list[PictureFile]:
    return [
        PictureFile(f"s3://b/{number:04} é.jpg", f"e{number}", size, f"{number:04} é.jpg")
        for number, size in enumerate(sizes)
    ]


@given(SIZES, TARGETS)
def test_every_picture_is_in_one_share_and_the_order_is_kept(sizes: list[int], target: int) -> None:
    pictures = listing(sizes)
    shares = list(split(pictures, target))
    assert [one for share in shares for one in share.pictures] == pictures
    assert all(share.pictures for share in shares)


@given(SIZES, TARGETS)
def test_no_share_is_over_the_target_but_a_single_picture(sizes: list[int], target: int) -> None:
    for share in split(listing(sizes), target):
        assert sum(map(weight, share.pictures)) <= target or len(share.pictures) == 1
        assert share.size == sum(one.size for one in share.pictures)


@given(SIZES, TARGETS)
def test_no_two_neighbours_would_fit_into_one(sizes: list[int], target: int) -> None:
    """So there are fewer than twice as many shares as there must be."""
    shares = [sum(map(weight, share.pictures)) for share in split(listing(sizes), target)]
    assert all(one + next_ > target for one, next_ in pairwise(shares))


@given(SIZES)
def test_a_share_survives_the_way_to_another_process(sizes: list[int]) -> None:
    share = Share(tuple(listing(sizes)))
    assert Share.unpack(share.pack()) == share


def test_the_listing_is_taken_only_as_far_as_needed() -> None:
    taken = 0

    def endless() -> Iterator[PictureFile]:
        nonlocal taken
        while True:
            taken += 1
            yield PictureFile(f"file:///{taken}.jpg", "e", SMALLEST, "k")

    shares = split(endless(), 10 * SMALLEST)
    assert len(next(shares).pictures) == 10
    assert taken == 11


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        split([], 0)
