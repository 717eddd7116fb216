"""Where one scene of a video ends and the next begins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.faces.detector import Image

_SIZE = (32, 18)  # px: a cut changes the whole picture, so a thumbnail shows it
_LEAST_CHANGE = 10.0  # grey levels: two nearly even thumbnails correlate at random


class SceneCuts:
    """Compares each frame with the one before by a thumbnail of 32x18 px.

    Two frames are of different scenes where their thumbnails correlate less than `correlation`
    and differ by more than 10 grey levels on average. A flash of light changes the levels but
    hardly the correlation.

    Args:
        correlation: params.yaml's `video.cut_correlation`.
        last: the thumbnail to go on from, as `last` gave it.
    """

    def __init__(self, correlation: float = 0.4, last: list[int] | None = None) -> None:
        self.correlation = correlation
        self._last: NDArray[np.float32] | None = None
        if last is not None:
            self._last = np.array(last, np.float32)

    @property
    def last(self) -> list[int] | None:
        """The thumbnail of the latest frame: what a run that goes on needs to know."""
        return None if self._last is None else [int(level) for level in self._last]

    def is_cut(self, grey: Image) -> bool:
        """Whether this frame begins another scene than the frame of the call before."""
        import cv2

        small = cv2.resize(grey, _SIZE, interpolation=cv2.INTER_AREA)
        now = np.asarray(small, np.float32).ravel()
        before, self._last = self._last, now
        if before is None or float(np.abs(now - before).mean()) < _LEAST_CHANGE:
            return False
        return correlation(before, now) < self.correlation


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Pearson's correlation of two arrays of one size; 1.0 where one of them is constant."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / size if size > 0 else 1.0
