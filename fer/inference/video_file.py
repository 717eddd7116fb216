"""Frames of a video file with their true times, in order; none goes missing in silence.

A file is read twice. First its packets alone, undecoded (a second for an hour of video): that
gives the number of frames and the time of each as the container states it, also at a variable
frame rate. Then the frames themselves, each recognised by its time stamp; one that the container
lists and the decoder does not give is corrupt, and is reported as such.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fer.errors import UsageError, VideoError
from fer.inference.no_video import is_sound, refuse, why_not
from fer.inference.packets import RETRIES, SAME, open_capture, packet_times
from fer.inference.packets import quiet as quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEEK_BACK = 2.0  # s: a seek lands on a key frame, which may lie after the frame looked for
_SEEK_FROM = 10.0  # s: nearer frames are reached as quickly by decoding up to them


@dataclass(frozen=True)
class VideoInfo:
    """What a video is.

    Attributes:
        width: as shown, rotation metadata applied, px.
        height: the same.
        fps: frames per second on average.
        frames: that the file holds.
        declared: that its header promises; more than `frames` in a truncated file.
        duration: to the end of the last frame, s.
        codec: four letters.
        rotation: that was applied, degrees.
    """

    width: int
    height: int
    fps: float
    frames: int
    declared: int
    duration: float
    codec: str
    rotation: int


@dataclass(frozen=True)
class Frame:
    """One frame: its index in the file, its time in s, and pixels, None where it is corrupt.

    Pixels are BGR, uint8 (h, w, 3), upright.
    """

    index: int
    time: float
    pixels: NDArray[np.uint8] | None


class VideoFile:
    """A video file, opened and measured; a context manager.

    Args:
        path: any file that OpenCV's FFmpeg reads.

    Raises:
        VideoError: absent, empty, truncated beyond reading, without video, or of a codec that
            OpenCV lacks; the message says which.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._capture: Any = None
        refuse(self.path)
        self._stat = self.path.stat()
        self.times, self._shown = packet_times(self.path)
        if not self.times or (len(self.times) == 1 and is_sound(self.path)):  # with a cover
            raise VideoError(why_not(self.path))
        # Some containers have no times that tell frames apart; those are counted.
        self._timed = all(one < other for one, other in pairwise(self.times))
        self._open()
        if self._late():
            self._timed = False
        if len(self.times) > 1 and self.times[-1] == self.times[0]:  # a bare stream, without times
            rate = self._rate()
            self.times = array("d", (index / rate for index in range(len(self.times))))
        self.info = self._measure()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._capture is not None:
            self._capture.release()

    @property
    def uri(self) -> str:
        """file:// and the absolute path."""
        return Path(os.path.abspath(self.path)).as_uri()

    @property
    def etag(self) -> str:
        """Which content the file had when it was opened: size and time of change, in hex."""
        return f"{self._stat.st_size:x}-{self._stat.st_mtime_ns:x}"

    def changed(self) -> bool:
        """Whether the file is another one by now, or gone."""
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns)

    def choose(
        self, start: float | None = None, end: float | None = None, fps: float | None = None
    ) -> NDArray[np.int64]:
        """Indices of the frames in a time range, at a lower rate if asked.

        Args:
            start: s; None is the beginning.
            end: s, exclusive; None is the end.
            fps: frames per second; of every 1 / fps seconds the first frame. None takes all.

        Raises:
            UsageError: the range is empty or lies outside the video.
        """
        times = np.frombuffer(self.times, np.float64)
        first = 0.0 if start is None else start
        last = float("inf") if end is None else end
        if first < 0 or last <= first:
            raise UsageError(
                f"The range from {first:g} to {last:g} s is empty or negative. "
                "Start at 0 or later, and end after the start."
            )
        if first >= self.info.duration:
            raise UsageError(
                f"The range begins at {first:g} s, but {self.path} ends at "
                f"{self.info.duration:.3f} s. Begin earlier."
            )
        low, high = np.searchsorted(times, [first - 1e-9, last - 1e-9])
        chosen = np.arange(low, high, dtype=np.int64)
        if fps is not None and len(chosen):
            # A frame a hair before its place on the grid belongs there, not a frame later: the
            # times of Matroska are rounded to milliseconds.
            hair = max(1e-3, 6e-4 * fps)
            slots = np.floor((times[chosen] - first) * fps + hair).astype(np.int64)
            chosen = chosen[np.concatenate([[True], np.diff(slots) > 0])]
        if not len(chosen):
            raise UsageError(
                f"No frame of {self.path} lies between {first:g} and {last:g} s. Widen the range."
            )
        return chosen

    def frames(self, wanted: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """The frames of these ascending indices, each once; those that fail have no pixels."""
        failures, here, retry_at = 0, -1, 0.0
        for index in (int(one) for one in wanted):
            if failures >= RETRIES and self.times[index] >= retry_at:
                # Beyond a stretch that cannot be decoded there may be frames again.
                retry_at = self.times[index] + _SEEK_FROM
                reached = self._jump(index, here)
                if reached is not None:
                    failures, here = 0, reached
            elif failures < RETRIES and here < index:
                here = self._near(index, here)
            while here < index and failures < RETRIES:
                if not self._capture.grab():
                    failures += 1
                    continue
                failures = 0
                here = self._position(here)
            pixels = None
            if here == index:
                there, pixels = self._capture.retrieve()
                pixels = pixels if there and pixels is not None and pixels.size else None
            yield Frame(index, self.times[index], pixels)

    def _near(self, index: int, here: int) -> int:
        """Jump to shortly before a frame that is far ahead; the index that was reached."""
        if not self._timed:
            return here
        since = self.times[here] if here >= 0 else 0.0
        if self.times[index] - since < _SEEK_FROM:
            return here
        reached = self._jump(index, here)
        if reached is not None and reached < index:
            return reached
        # The container has no usable index: from the beginning, frame by frame.
        self._open()
        return -1

    def _jump(self, index: int, here: int) -> int | None:
        """Seek to a little before a frame; the index reached, None where that is no progress."""
        import cv2

        aim = max(0.0, self.times[index] - _SEEK_BACK) * 1000
        if not (self._timed and self._capture.set(cv2.CAP_PROP_POS_MSEC, aim)):
            return None
        reached = self._position(here) if self._capture.grab() else -1
        return reached if reached > here else None

    def _position(self, before: int) -> int:
        """Index of the frame that was just grabbed."""
        import cv2

        if not self._timed:
            return before + 1
        time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return max(before, bisect_left(self.times, time + SAME) - 1)

    def _late(self) -> bool:
        """Whether the decoder's times lag behind: an AVI states when frames are sent, not shown.

        With frames out of order the first that is shown then has the time of the packet that let
        it go, which is not the first.
        """
        import cv2

        with self.path.open("rb") as file:
            if file.read(12)[8:] != b"AVI ":
                return False
        late = self._capture.grab() and self._capture.get(cv2.CAP_PROP_POS_MSEC) > SAME * 1000
        self._open()
        return bool(late)

    def _open(self) -> None:
        self.close()
        self._capture = open_capture(self.path)
        if not self._capture.isOpened():
            raise VideoError(why_not(self.path))

    def _ask(self, what: int) -> float:
        value = float(self._capture.get(what))
        return value if np.isfinite(value) else 0.0

    def _rate(self) -> float:
        """Frames a second, as the header states."""
        import cv2

        declared = self._ask(cv2.CAP_PROP_FPS)
        return declared if 0 < declared < 1000 else 25.0

    def _measure(self) -> VideoInfo:
        import cv2

        ask, frames, rate = self._ask, len(self.times), self._rate()
        declared = round(ask(cv2.CAP_PROP_FRAME_COUNT)) if self._shown is None else self._shown
        span = self.times[-1] - self.times[0]
        last = float(np.median(np.diff(self.times))) if frames > 1 else 1.0 / rate
        code = int(ask(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24))
        width, height = int(ask(cv2.CAP_PROP_FRAME_WIDTH)), int(ask(cv2.CAP_PROP_FRAME_HEIGHT))
        return VideoInfo(
            width=width,
            height=height,
            fps=round((frames - 1) / span, 4) if span > 0 else rate,
            frames=frames,
            declared=max(frames, declared),
            duration=self.times[-1] + last,
            codec="".join(letter if letter.isalnum() else "?" for letter in letters),
            rotation=int(ask(cv2.CAP_PROP_ORIENTATION_META)),
        )
