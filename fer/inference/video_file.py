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

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEEK_BACK = 2.0  # s: a seek lands on a key frame, which may lie after the frame looked for
_SEEK_FROM = 10.0  # s: nearer frames are reached as quickly by decoding up to them
_RETRIES = 3  # reads that may fail in a row before the rest counts as lost
_SAME = 1e-6  # s
_HEAD = 1 << 16


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
        self._refuse()
        self.times = _packets(self.path)
        if not self.times:
            raise VideoError(_why_not(self.path))
        # Some containers have no times that tell frames apart; those are counted.
        self._timed = all(one < other for one, other in pairwise(self.times))
        self._open()
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
        """Which content the file has: size and time of change, in hex."""
        stat = self.path.stat()
        return f"{stat.st_size:x}-{stat.st_mtime_ns:x}"

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
            # A frame a hair before its place on the grid belongs there, not a frame later.
            slots = np.floor((times[chosen] - first) * fps + 1e-3).astype(np.int64)
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
            if failures >= _RETRIES and self.times[index] >= retry_at:
                # Beyond a stretch that cannot be decoded there may be frames again.
                retry_at = self.times[index] + _SEEK_FROM
                reached = self._jump(index, here)
                if reached is not None:
                    failures, here = 0, reached
            elif failures < _RETRIES and here < index:
                here = self._near(index, here)
            while here < index and failures < _RETRIES:
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
        return max(before, bisect_left(self.times, time + _SAME) - 1)

    def _open(self) -> None:
        self.close()
        self._capture = _capture(self.path)
        if not self._capture.isOpened():
            raise VideoError(_why_not(self.path))

    def _refuse(self) -> None:
        if str(self.path).startswith(("s3:/", "http:/", "https:/", "rtsp:/")):
            raise VideoError(
                f"{self.path} is no local file. Copy it to a disk first; `fer live` takes streams."
            )
        if not self.path.exists():
            raise VideoError(f"There is no {self.path}. Name a video file.")
        if not self.path.is_file():
            raise VideoError(f"{self.path} is no file. Name video files one by one.")
        if self.path.stat().st_size == 0:
            raise VideoError(f"{self.path} is empty (0 bytes). Copy or record it again.")
        try:
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise VideoError(f"{self.path} cannot be read: {error.strerror}.") from None

    def _measure(self) -> VideoInfo:
        import cv2

        def ask(what: int) -> float:
            value = float(self._capture.get(what))
            return value if np.isfinite(value) else 0.0

        frames = len(self.times)
        declared_fps = ask(cv2.CAP_PROP_FPS)
        rate = declared_fps if 0 < declared_fps < 1000 else 25.0
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
            declared=max(frames, round(ask(cv2.CAP_PROP_FRAME_COUNT))),
            duration=self.times[-1] + last,
            codec="".join(letter if letter.isalnum() else "?" for letter in letters),
            rotation=int(ask(cv2.CAP_PROP_ORIENTATION_META)),
        )


def quiet() -> None:
    """Keep OpenCV and its FFmpeg from writing to stderr: what they would say, errors here say."""
    import cv2

    # Read by OpenCV when it first opens a video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _capture(path: Path) -> Any:
    quiet()
    import cv2

    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)


def _packets(path: Path) -> array[float]:
    """The times of all frames that the container lists, s, ascending."""
    import cv2

    capture = _capture(path)
    times = array("d")
    try:
        if capture.isOpened() and capture.set(cv2.CAP_PROP_FORMAT, -1):
            while capture.grab():
                time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if time >= 0:  # before 0 lies what an edit list cuts off
                    times.append(time)
    finally:
        capture.release()
    return array("d", sorted(times))


def _why_not(path: Path) -> str:
    """What is wrong with a file from which no frame can be had, as far as its bytes tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - _HEAD * 16))
        tail = file.read()
    if head[4:8] == b"ftyp":
        both = head + tail
        if not _has_whole_index(path, size):
            return (
                f"{path} is truncated: its index (moov), which is written last, is missing or cut "
                "off. Copy it again, or repair it with a tool such as untrunc."
            )
        if b"vide" not in both and b"soun" in both:
            return _audio_only(path)
    audio = (
        head[:4] == b"RIFF" and head[8:12] == b"WAVE",
        head[:3] == b"ID3",
        head[:4] in (b"fLaC", b"OggS") and b"theora" not in head,
        len(head) > 1
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[:3] != b"\xff\xd8\xff",
    )
    if any(audio):
        return _audio_only(path)
    return (
        f"{path} holds no video that this OpenCV can decode: it is damaged, no video, or of a "
        "codec that is not built in. Play it elsewhere; if it plays, convert it: "
        "ffmpeg -i IN -c:v libx264 OUT.mp4"
    )


def _has_whole_index(path: Path, size: int) -> bool:
    """Whether the box `moov` of an MP4 ends within the file."""
    place = 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:  # a 64-bit length follows
                length = int.from_bytes(header[8:], "big")
            if header[4:8] == b"moov":
                return place + length <= size
            if length < 8:  # 0: to the end of the file
                return False
            place += length
    return False


def _audio_only(path: Path) -> str:
    return f"{path} holds sound but no video. Name the file with the pictures."
