"""Frames as they happen: a camera, a stream, or a file played at its own pace.

A thread reads and keeps only the newest frame, so that whoever looks never works off a queue of
old ones. A camera or stream that goes away is opened again and again until it is back.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fer.errors import VideoError
from fer.inference.video_file import VideoFile, quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIMEOUT = 5000  # ms that a stream may take to open, and between two frames
_FAILURES = 300  # reads in a row that give nothing: beyond damaged frames there may be whole ones
_SPELL = 1.0  # s that they may take together where the source can be opened again


@dataclass(frozen=True)
class Shot:
    """One frame of a camera.

    Attributes:
        number: counts all frames that were read, from 1; a jump means that some were passed over.
        time: s since the camera was opened.
        taken: `time.perf_counter()` when it had been decoded.
        pixels: BGR, uint8 (h, w, 3).
    """

    number: int
    time: float
    taken: float
    pixels: NDArray[np.uint8]


class Camera:
    """A source of live frames; a context manager.

    Args:
        source: a camera's index ("0"), a stream's URL, or a file.
        retry: s between attempts to open a source that went away.
        repeat: begin a file again where it ends.

    Raises:
        VideoError: the source cannot be opened to begin with; the message says what to try.
    """

    def __init__(self, source: str, *, retry: float = 1.0, repeat: bool = False) -> None:
        self.source, self.retry, self.repeat = source, retry, repeat
        self.kind = "camera" if source.isdecimal() else "stream" if "://" in source else "file"
        if self.kind == "file":
            VideoFile(source).close()  # says exactly what is wrong with it
        self.lost = False
        """Whether the source is away at the moment."""
        self.returns = 0
        """How often it came back."""
        self.ended = False
        """Whether a file is over, or the camera was closed."""
        self._capture = self._opened()
        if self._capture is None:
            raise VideoError(self._refusal())
        self._newest: Shot | None = None
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._begun = self._played = time.perf_counter()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

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
        """Stop reading and let go of the source."""
        self._closing.set()
        self._thread.join(timeout=2 * _TIMEOUT / 1000)

    def latest(self, after: int, timeout: float) -> Shot | None:
        """The newest frame once its number is above `after`; None if there is none in time.

        Raises:
            VideoError: no frame can come any more, and that is not the end of a file.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._is_new(after), timeout)
            if self._is_new(after):
                return self._newest
            if self._failure is not None:
                text = f"Reading the {self.kind} has ended: {self._failure}"
                raise VideoError(text) from self._failure
            return None

    def _is_new(self, after: int) -> bool:
        return self._newest is not None and self._newest.number > after

    def _read(self) -> None:
        try:
            self._read_on()
        except Exception as error:  # raised again where the frames are taken
            self._failure = error
        finally:
            if self._capture:
                self._capture.release()
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _read_on(self) -> None:
        number = failures = 0
        before = 0  # number when the source was last opened
        good = time.perf_counter()
        while not self._closing.is_set():
            there, pixels = self._capture.read() if self._capture else (False, None)
            if there and pixels is not None and pixels.size:
                number, failures = number + 1, 0
                self._keep_pace()
                now = good = time.perf_counter()
                with self._changed:
                    self.returns += self.lost
                    self.lost = False
                    self._newest = Shot(number, now - self._begun, now, pixels)
                    self._changed.notify_all()
                continue
            failures += 1
            live = self.kind != "file"
            spell = time.perf_counter() - good
            if self._capture and failures < _FAILURES and not (live and spell > _SPELL):
                continue
            if live:
                self._reopen()
            elif number == before:
                raise VideoError(f"no frame of {self.source} can be decoded. Play it elsewhere.")
            elif not self.repeat:
                return
            else:
                self._begin_again()
            before, failures, good = number, 0, time.perf_counter()

    def _begin_again(self) -> None:
        """Play a file from its beginning."""
        self._capture.release()
        self._capture, self._played = self._opened(), time.perf_counter()
        if self._capture is None:
            raise VideoError(f"{self.source} cannot be opened again. Was it moved or removed?")

    def _reopen(self) -> None:
        with self._changed:
            self.lost = True
            self._changed.notify_all()
        if self._capture:
            self._capture.release()
            self._capture = None
        if not self._closing.wait(self.retry):
            self._capture = self._opened()

    def _keep_pace(self) -> None:
        """Wait until a file's frame is due, as if a camera gave it."""
        if self.kind == "file" and self._capture:
            import cv2

            due = self._played + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            self._closing.wait(max(0.0, due - time.perf_counter()))

    def _opened(self) -> Any:
        """The source as OpenCV has it, or None."""
        quiet()
        import cv2

        if self.kind == "camera":
            capture = cv2.VideoCapture(int(self.source))
            if capture.isOpened():
                # The driver's own queue would only make frames older.
                capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT
            ]  # fmt: skip
            capture = cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, limits)
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _refusal(self) -> str:
        if self.kind == "camera":
            found = sorted(one.name for one in Path("/dev").glob("video*"))
            have = f"There are {', '.join(found)}." if found else "This machine has none."
            return (
                f"Camera {self.source} cannot be opened. {have} Check that it is plugged in, that "
                "no other program uses it and that you may read it, or name a stream or a file."
            )
        return (
            f"The stream {self.source} does not answer, or sends nothing that OpenCV can decode. "
            "Check the address, for example in a browser or with ffplay."
        )
