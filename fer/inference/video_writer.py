"""An .mp4 that grows beside its target, and takes its place whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fer.errors import StoreError, UsageError, VideoError
from fer.inference.video_file import VideoFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_TICKS = 65535  # in a second: MPEG-4 counts them in 16 bits


class VideoWriter:
    """Writes one .mp4; a context manager that leaves nothing behind unless `finish` was called.

    Args:
        target: the .mp4 to write.
        fps: frames per second, at least 0.01; `fps` has what it is rounded to.
        size: width and height, px.

    Raises:
        UsageError: the target is no .mp4.
        StoreError: it cannot be written.
    """

    def __init__(self, target: Path, fps: float, size: tuple[int, int]) -> None:
        import cv2

        check_name(target, "video")
        self.target, self.fps, self.size = target, _rate(fps), size
        self.written = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        # OpenCV takes the format from the suffix, so the temporary file has it too.
        self._temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.mp4")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer: Any = cv2.VideoWriter(os.fspath(self._temporary), code, self.fps, size)
        if not self._writer.isOpened():
            with suppress(OSError):
                self.close()
            raise StoreError(f"{target} cannot be written. Choose another folder.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add a BGR picture, uint8 (h, w, 3), of the size of the video."""
        self._writer.write(picture)
        self.written += 1

    def finish(self) -> None:
        """Put the file in its place.

        Raises:
            StoreError: not all of it is on the disk; the target stays as it was.
        """
        self._writer.release()
        try:
            # OpenCV's writer does not say that the disk is full; the file does.
            if _frames(self._temporary) != self.written:
                raise StoreError(
                    f"{self.target} cannot be written whole: the disk is full, or a limit on file "
                    "sizes is reached. Free some space and run again: nothing half-written was "
                    "left."
                )
            os.replace(self._temporary, self.target)
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is not finished."""
        self._writer.release()
        self._temporary.unlink(missing_ok=True)


def check_name(target: Path, what: str) -> None:
    """Refuse a target that is no .mp4.

    Raises:
        UsageError: it is none.
    """
    if target.suffix.lower() != ".mp4":
        raise UsageError(f"{target} does not end with .mp4. Name the {what} so.")


def check_source(target: Path, source: str | Path) -> None:
    """Refuse to write over the video that is being read.

    Raises:
        UsageError: `target` and `source` are one file.
    """
    try:
        same = target.samefile(Path(source).expanduser())
    except (OSError, ValueError):  # one of them is no file
        return
    if same:
        raise UsageError(f"{target} is the video itself, and would be lost. Choose another name.")


def _rate(fps: float) -> float:
    """The nearest rate that an .mp4 can have: OpenCV counts 1/1000 s, or less if that is too fine.

    119.8765 frames/s would be 119,877 ticks, which MPEG-4 cannot count; 119.88 are 11,988.
    """
    decimals = 3
    while decimals and round(fps * 10**decimals) > _MOST_TICKS:
        decimals -= 1
    return round(fps, decimals)


def _frames(path: Path) -> int:
    try:
        with VideoFile(path) as file:
            return file.info.frames
    except VideoError:
        return 0
