"""Expressions as they happen.

Each new frame is tracked at once, and the people in it are classified in turns. Detection takes
longer than a frame, so it runs beside that in a thread; when it is done, optical flow carries what
it found to the present frame. It begins anew as soon as it may, so on a slow machine detections
become rarer and the picture stays smooth.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.faces.crop import crop_face
from fer.faces.cuts import SceneCuts
from fer.faces.looks import Looks
from fer.faces.tracker import Tracker
from fer.inference.keyframes import Turns
from fer.inference.overlay import Label, draw
from fer.inference.timeline import RunningFilter, Series
from fer.inference.video_writer import check_source

if TYPE_CHECKING:
    from fer.faces.detector import Detection, Detector, Image
    from fer.faces.flow import Moment
    from fer.inference.camera import Camera, Shot
    from fer.inference.recognizer import Recognizer
    from fer.inference.screen import Recording, Screen
    from fer.params import VideoParams

STAGES = ("wait", "track", "classify", "draw", "latency", "detect")
"""What is timed: from the camera's frame to its turn; the stages; from the camera's frame to the
drawn one; and detection, which runs beside these."""

_KEPT = 100_000  # times per stage that percentiles are taken of
_PATIENCE = 0.5  # s without a frame after which the picture says so
_WARM_UP = 10  # frames that the percentiles leave out


@dataclass(frozen=True)
class LiveFrame:
    """What was seen in one frame: s since the start, faces, and frames per second by now."""

    time: float
    faces: tuple[Label, ...]
    fps: float


@dataclass
class LiveReport:
    """One session.

    Attributes:
        frames: analysed; `passed_over` more came before one or while one was being analysed.
        faces: seen, over all frames.
        tracks: persons told apart.
        detections: how often the detector looked.
        returns: how often the source went away and came back.
        latency_ms: of each of `STAGES` the 50th, 95th and 99th percentile and the maximum, ms.
    """

    source: str
    frames: int = 0
    passed_over: int = 0
    faces: int = 0
    tracks: int = 0
    detections: int = 0
    returns: int = 0
    seconds: float = 0.0
    frames_per_second: float = 0.0
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return asdict(self)


class Live:
    """A live session: `run` it once.

    Args:
        camera: where frames come from.
        recognizer: model and `faces` parameters.
        params: tracking and smoothing; None is the defaults.
        screen: shows each frame; None shows nothing.
        recording: takes each frame; None records nothing.

    Raises:
        UsageError: the recording would go over the file that is played.
    """

    def __init__(
        self,
        camera: Camera,
        recognizer: Recognizer,
        params: VideoParams | None = None,
        *,
        screen: Screen | None = None,
        recording: Recording | None = None,
    ) -> None:
        if params is None:
            from fer.params import VideoParams

            params = VideoParams()
        if recording is not None:
            check_source(recording.target, camera.source)
        self.camera, self.recognizer, self.params = camera, recognizer, params
        self.screen, self.recording = screen, recording
        faces = recognizer.faces
        self._looks = Looks(params, faces)
        self._landmarks = recognizer.landmarks if faces.align else None
        self._tracker = Tracker(params, self._looks)
        self._cuts = SceneCuts(params.cut_correlation)
        self._turns = Turns(params.classify_interval)
        self._filter = RunningFilter(params.timeline.smoothing)
        self._shown: dict[int, Series] = {}  # in the frame before
        self._times: dict[str, deque[float]] = {name: deque(maxlen=_KEPT) for name in STAGES}
        self._looking: tuple[Future[list[Detection]], Moment | None] | None = None
        self._returns = 0
        self._shape: tuple[int, ...] = ()
        self._tracks: set[int] = set()
        self._recent: deque[float] = deque(maxlen=30)
        self.report = LiveReport(camera.source)

    def run(
        self,
        *,
        frames: int | None = None,
        seconds: float | None = None,
        on_frame: Callable[[LiveFrame], None] | None = None,
        on_signal: Callable[[bool], None] | None = None,
    ) -> LiveReport:
        """Go on until the source ends, the window is closed, or a limit is reached.

        However it ends, by an exception too, `report` says what was done.

        Args:
            frames: that many at most.
            seconds: that long at most.
            on_frame: called with what was seen, after each frame.
            on_signal: called with False when the source goes away, and with True when it is back.

        Raises:
            DetectorError: the detector's library or model file is missing.
            VideoError: the source cannot be read any more.
            StoreError: the recording cannot be written.
        """
        begun = time.perf_counter()
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="detect") as pool:
                try:
                    self._go(pool, begun, frames, seconds, on_frame, on_signal)
                finally:
                    if self.screen:
                        self.screen.close()
                    if self.recording:
                        self.recording.close()
        finally:
            self._finish(time.perf_counter() - begun)
        return self.report

    def _go(
        self,
        pool: ThreadPoolExecutor,
        begun: float,
        frames: int | None,
        seconds: float | None,
        on_frame: Callable[[LiveFrame], None] | None,
        on_signal: Callable[[bool], None] | None,
    ) -> None:
        number, last, signal = 0, None, True
        while frames is None or self.report.frames < frames:
            if seconds is not None and time.perf_counter() - begun >= seconds:
                break
            shot = self.camera.latest(number, _PATIENCE)
            there = shot is not None or not self.camera.lost
            if there != signal:
                signal = there
                if on_signal:
                    on_signal(there)
            if shot is None:
                if self.camera.ended or not self._wait_on(last):
                    break
                continue
            self.report.passed_over += shot.number - number - 1
            number, last = shot.number, shot
            seen, go_on = self._take(shot, pool)
            if on_frame:
                on_frame(seen)
            if not go_on:
                break

    def _take(self, shot: Shot, pool: ThreadPoolExecutor) -> tuple[LiveFrame, bool]:
        import cv2

        started = time.perf_counter()
        grey = np.asarray(cv2.cvtColor(shot.pixels, cv2.COLOR_BGR2GRAY), np.uint8)
        cut = self._is_anew(grey)
        cut = self._cuts.is_cut(grey) or cut
        detections, moment = self._found(cut)
        tracked = self._tracker.update(grey, shot.time, detections, cut=cut, detected_on=moment)
        self._look(grey, shot, pool)
        turn = self._turns.choose(shot.time, [one.track for one in tracked])
        crops = [self._crop(grey, one.box) for one in tracked if one.track in turn]
        followed = time.perf_counter()
        scores = dict(zip(turn, self.recognizer.classifier.probabilities(crops), strict=True))
        self._shown = {
            track: self._filter.update(track, shot.time, scores[track])
            if track in scores
            else self._shown[track]
            for track in (one.track for one in tracked)
        }
        labels = tuple(Label(one.track, one.box, self._shown[one.track]) for one in tracked)
        self._filter.forget(shot.time - self.params.max_missing)
        classified = time.perf_counter()
        self._recent.append(classified)
        seen = LiveFrame(shot.time, labels, self._fps())
        go_on = self._show(shot, seen) if self.screen or self.recording else True
        ended = time.perf_counter()
        self.report.frames += 1
        self.report.faces += len(labels)
        self._tracks.update(one.track for one in tracked)
        if self.report.frames > _WARM_UP:
            self._times["wait"].append(started - shot.taken)
            self._times["track"].append(followed - started)
            self._times["classify"].append(classified - followed)
            self._times["draw"].append(ended - classified)
            self._times["latency"].append(ended - shot.taken)
        return seen, go_on

    def _is_anew(self, grey: Image) -> bool:
        """Whether the source was away, or gives another size: nothing leads from there to here."""
        before = self._returns, self._shape
        self._returns, self._shape = self.camera.returns, grey.shape
        return bool(before[1]) and before != (self._returns, self._shape)

    def _crop(self, grey: Image, box: Detection) -> Image:
        tilt = self._landmarks.pose(grey, box).roll if self._landmarks else 0.0
        return crop_face(grey, box, self.recognizer.faces.margin, tilt=tilt)

    def _found(self, cut: bool) -> tuple[list[Detection] | None, Moment | None]:
        """What a finished detection found, and the moment it looked at."""
        if self._looking is None:
            return None, None
        future, moment = self._looking
        if cut:
            moment = None  # it looks at another scene
        if not future.done():
            self._looking = future, moment
            return None, None
        self._looking = None
        found = future.result()
        return (found, moment) if moment is not None else (None, None)

    def _look(self, grey: Image, shot: Shot, pool: ThreadPoolExecutor) -> None:
        """Begin a detection, if none is under way and it is time."""
        if self._looking is not None or self._tracker.moment is None:
            return
        detector = self._looks.due(shot.time)
        if detector is None:
            return
        image = grey
        if detector.colour:
            image = np.ascontiguousarray(shot.pixels[:, :, ::-1])
        self._looking = (pool.submit(self._detect, detector, image), self._tracker.moment)
        self.report.detections += 1

    def _detect(self, detector: Detector, image: Image) -> list[Detection]:
        started = time.perf_counter()
        found = detector.detect(image)
        self._times["detect"].append(time.perf_counter() - started)
        return found

    def _show(self, shot: Shot, seen: LiveFrame) -> bool:
        draw(shot.pixels, seen.faces, f"{seen.fps:.0f} frames/s")
        if self.recording:
            self.recording.add(shot.pixels, shot.time)
        return self.screen.show(shot.pixels) if self.screen else True

    def _wait_on(self, last: Shot | None) -> bool:
        """Show and record that no frames come; False once the user wants to end."""
        if last is None:
            return True
        picture = last.pixels
        if self.camera.lost:
            picture = picture // 2
            draw(picture, (), f"no signal: waiting for {self.camera.source}")
        if self.recording:
            self.recording.add(picture, last.time + time.perf_counter() - last.taken)
        return self.screen.show(picture) if self.screen else True

    def _fps(self) -> float:
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / max(1e-6, self._recent[-1] - self._recent[0])

    def _finish(self, seconds: float) -> None:
        report = self.report
        report.tracks, report.returns = len(self._tracks), self.camera.returns
        report.seconds = round(seconds, 3)
        report.frames_per_second = round(report.frames / seconds, 2) if seconds else 0.0
        for name, times in self._times.items():
            if times:
                values = np.array(times) * 1000
                half, most, nearly_all = np.percentile(values, [50, 95, 99])
                report.latency_ms[name] = {
                    "p50": round(float(half), 2),
                    "p95": round(float(most), 2),
                    "p99": round(float(nearly_all), 2),
                    "max": round(float(values.max()), 2),
                }
