"""Who showed which expression when: a video in, one row per face and frame out.

Decoding, detection, tracking and classification overlap in threads, a bounded number of frames
apart, so memory depends on the frame size and not on the length. Detection runs on frames that
the parameters fix, never on how busy the machine is: the same video gives the same rows, and a
run that was killed and goes on gives those of one that was not.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.errors import UsageError
from fer.faces.cuts import SceneCuts
from fer.faces.finder import FoundFace, found_face
from fer.faces.tracker import Tracker
from fer.inference.ahead import ahead
from fer.inference.recognizer import Prediction, Recognizer
from fer.inference.results import face_columns
from fer.inference.timeline import episodes_of
from fer.inference.video_file import Frame, VideoFile
from fer.inference.video_parts import State, VideoResults

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer.faces.detector import Detection, Detector, Image
    from fer.params import VideoParams

PART_FRAMES = 900
"""Analysed frames per part: what a killed run may have to do again; half a minute of video."""

CORRUPT = "corrupt"
"""The mark of a frame that the decoder could not give."""

_AHEAD_BYTES = 96 << 20  # that waiting frames may take together
_MOST_AHEAD = 32
_SHOWN = np.zeros((0, 0, 3), np.uint8)  # in the place of pixels that were there
_BATCH = 16  # faces: larger batches gain little

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all."""


@dataclass
class VideoSummary:
    """What one analysis did. `NAME.json` beside the results holds it.

    Attributes:
        frames: analysed frames, each with at least one row.
        resumed: of these, what an earlier, killed run had done.
        faces: rows with a face; `carried` of them between two detections.
        tracks: persons told apart.
        corrupt: frames that could not be decoded; their rows say so.
        seconds: of this run.
        frames_per_second: of this run.
        stages: seconds that each stage was busy; they overlap.
        warnings: what the reader of the results should know.
    """

    run_id: str
    video: str
    results: str
    model_name: str
    model_version: int | None
    model_digest: str
    detector: str
    width: int
    height: int
    fps: float
    duration: float
    codec: str
    start: float
    end: float
    frames: int = 0
    resumed: int = 0
    finished_before: bool = False
    faces: int = 0
    carried: int = 0
    tracks: int = 0
    without_face: int = 0
    corrupt: int = 0
    episodes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    frames_per_second: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)


def analyze_video(
    path: str | Path,
    recognizer: Recognizer,
    output: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    params: VideoParams | None = None,
    csv: bool = False,
    overlay: str | Path | None = None,
    part_frames: int = PART_FRAMES,
    progress: Progress | None = None,
) -> VideoSummary:
    """Analyse one video file.

    Writes the rows to `output` (the results schema of `fer.inference.results`), and beside it
    `NAME.episodes.csv` and `NAME.json`. A run that is killed goes on when it is called again
    with the same arguments; one that had finished is not repeated.

    Args:
        path: any file that OpenCV reads.
        recognizer: model and `faces` parameters.
        output: the Parquet file to write.
        start: s from the beginning; None is the beginning.
        end: s, exclusive; None is the end.
        params: sampling, tracking and timeline; None is the defaults.
        csv: write NAME.csv too.
        overlay: an .mp4 to write in which boxes and expressions are drawn.
        part_frames: analysed frames between two moments at which a kill loses nothing.
        progress: called after every frame.

    Raises:
        VideoError: the file cannot be read; the message says why.
        UsageError: the range lies outside the video.
        DetectorError: the detector's library or model file is missing.
        ConflictError: another run is writing the same output.
    """
    if part_frames < 1:
        raise UsageError(f"part_frames is {part_frames}; it must be at least 1.")
    if params is None:
        from fer.params import VideoParams

        params = VideoParams()
    target = Path(output).expanduser()
    if target.suffix != ".parquet":
        raise UsageError(f"{output} does not end with .parquet. Name the results so.")
    begun = time.monotonic()
    with VideoFile(path) as video:
        wanted = video.choose(start, end, params.sample_fps)
        run = _Run(video, recognizer, params, wanted, part_frames)
        results = VideoResults(target, run.job(start, end))
        summary = run.summary(target)
        if results.finished():
            summary.finished_before = True
        else:
            with results.only_writer():
                run.go(results, progress)
            summary.resumed = run.resumed
    counts = results.counts()
    summary.frames, summary.faces, summary.carried = counts.frames, counts.faces, counts.carried
    summary.tracks, summary.without_face = counts.tracks, counts.without_face
    summary.corrupt = counts.corrupt
    if counts.corrupt:
        summary.warnings.append(f"{counts.corrupt} frames could not be decoded; they are marked.")
    summary.episodes = [
        one.as_dict() for one in episodes_of(results.timeline_table(), params.timeline)
    ]
    summary.stages = {name: round(spent, 3) for name, spent in run.stages.items()}
    summary.seconds = round(time.monotonic() - begun, 3)
    done = 0 if summary.finished_before else len(wanted) - run.resumed
    summary.frames_per_second = round(done / summary.seconds, 2) if summary.seconds else 0.0
    results.write_beside(summary.as_dict())
    if csv:
        results.write_csv(target.with_suffix(".csv"))
    if overlay is not None:
        from fer.inference.overlay import render_overlay

        render_overlay(path, results, Path(overlay), params.timeline, progress)
    return summary


@dataclass
class _Seen:
    """One frame on its way: decoded, then with faces, then with their probabilities."""

    frame: Frame
    grey: Image | None = None
    detections: Future[list[Detection]] | None = None
    cut: bool = False
    fresh: bool = False
    state: State | None = None  # before this frame, where a part begins
    faces: tuple[tuple[int, bool, FoundFace], ...] = ()
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 7), np.float32))


class _Run:
    """One analysis under way."""

    def __init__(
        self,
        video: VideoFile,
        recognizer: Recognizer,
        params: VideoParams,
        wanted: NDArray[np.int64],
        part_frames: int,
    ) -> None:
        from fer.faces.detector import make_detector

        self.video, self.recognizer, self.params = video, recognizer, params
        self.wanted, self.part_frames = wanted, part_frames
        faces = recognizer.faces
        side = min(faces.max_side, params.max_side)
        self.detector: Detector = make_detector(faces.model_copy(update={"max_side": side}))
        self.landmarks = recognizer.landmarks
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.stages = {"decode": 0.0, "detect": 0.0, "track": 0.0, "classify": 0.0, "write": 0.0}
        self.resumed = 0
        self._settings = {
            "faces": faces.model_dump(mode="json"),
            "video": params.model_dump(mode="json", exclude={"timeline"}),
        }

    def job(self, start: float | None, end: float | None) -> dict[str, Any]:
        """All that decides the rows."""
        return self._settings | {
            "uri": self.video.uri,
            "etag": self.video.etag,
            "model": self.recognizer.model.digest,
            "start": start,
            "end": end,
            "part_frames": self.part_frames,
        }

    def summary(self, target: Path) -> VideoSummary:
        info, model = self.video.info, self.recognizer.model
        last = int(self.wanted[-1])
        after = self.video.times[last + 1] if last + 1 < info.frames else info.duration
        warnings = []
        if info.declared - info.frames > max(5, info.declared // 100):
            warnings.append(
                f"The file promises {info.declared} frames and holds {info.frames}: it is "
                "truncated or damaged. What is there was analysed."
            )
        return VideoSummary(
            run_id=self.run_id,
            video=self.video.uri,
            results=str(target),
            model_name=model.name,
            model_version=model.version,
            model_digest=model.digest,
            detector=self.detector.name,
            width=info.width,
            height=info.height,
            fps=info.fps,
            duration=info.duration,
            codec=info.codec,
            start=self.video.times[int(self.wanted[0])],
            end=after,
            warnings=warnings,
        )

    def go(self, results: VideoResults, progress: Progress | None) -> None:
        """Analyse what no part holds yet, and make the final file."""
        part, state = results.resume()
        first = min(part * self.part_frames, len(self.wanted))
        self.resumed = first
        rows: list[dict[str, Any]] = []
        position = first
        with ThreadPoolExecutor(_workers(), thread_name_prefix="detect") as pool:
            room = self._room()
            decoded = ahead(self._decoded(first, state, pool), room, "decode")
            tracked = ahead(self._tracked(decoded, state), _MOST_AHEAD, "track")
            classified = ahead(self._classified(tracked), _MOST_AHEAD, "classify")
            try:
                for one in classified:
                    if one.state is not None and position > first:
                        self._write(results, part, rows, one.state)
                        part, rows = part + 1, []
                    rows += self._rows(one)
                    position += 1
                    if progress:
                        progress(position, len(self.wanted))
            finally:
                for stage in (classified, tracked, decoded):
                    stage.close()
        if rows:
            self._write(results, part, rows, {})
            part += 1
        results.finish(part)

    def _decoded(
        self, first: int, state: State | None, pool: ThreadPoolExecutor
    ) -> Generator[_Seen, None, None]:
        """Frames, grey, with detection begun where it is due."""
        import cv2

        cuts = SceneCuts(self.params.cut_correlation, state["thumbnail"] if state else None)
        looked = state["looked"] if state else None
        fresh = False  # a part begins: nothing but the state is taken over from the part before
        clock = time.perf_counter()
        for position, frame in enumerate(self.video.frames(self.wanted[first:]), start=first):
            begins = position % self.part_frames == 0
            fresh = fresh or begins
            seen = _Seen(frame, fresh=fresh)
            if begins and position:
                seen.state = {"thumbnail": cuts.last, "looked": looked}
            if frame.pixels is not None:
                pixels = frame.pixels
                seen.grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
                seen.cut = cuts.is_cut(seen.grey)
                due = looked is None or frame.time - looked >= self.params.detect_interval - 1e-6
                if due or seen.cut or seen.fresh:
                    looked = frame.time
                    image = seen.grey
                    if self.detector.colour:
                        image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
                    seen.detections = pool.submit(self._detect, image)
                fresh = False
                # The colours are not needed any more, and take three quarters of the memory.
                seen.frame = Frame(frame.index, frame.time, _SHOWN)
            self.stages["decode"] += time.perf_counter() - clock
            yield seen
            clock = time.perf_counter()

    def _detect(self, image: Image) -> list[Detection]:
        clock = time.perf_counter()
        found = self.detector.detect(image)
        self.stages["detect"] += time.perf_counter() - clock
        return found

    def _tracked(
        self, frames: Iterator[_Seen], state: State | None
    ) -> Generator[_Seen, None, None]:
        """Faces with numbers, quality and crop."""
        params = self.params
        if params.sample_fps is not None:
            # At a low rate two frames in a row may be further apart than anybody may be missing.
            longest = max(params.max_missing, 2 / params.sample_fps)
            params = params.model_copy(update={"max_missing": longest})
        tracker = Tracker(params)
        if state:
            tracker.restore(state["tracker"])
        for seen in frames:
            if seen.state is not None:
                seen.state["tracker"] = tracker.state()
            if seen.grey is not None:
                detections = seen.detections.result() if seen.detections else None
                clock = time.perf_counter()
                tracked = tracker.update(
                    seen.grey, seen.frame.time, detections, cut=seen.cut, fresh=seen.fresh
                )
                seen.faces = tuple(
                    (one.track, one.detected, self._found(seen.grey, one.box)) for one in tracked
                )
                seen.grey = seen.detections = None
                self.stages["track"] += time.perf_counter() - clock
            yield seen

    def _found(self, grey: Image, box: Detection) -> FoundFace:
        margin = self.recognizer.faces.margin
        return found_face(grey, box, margin, landmarks=self.landmarks)

    def _classified(self, frames: Iterator[_Seen]) -> Generator[_Seen, None, None]:
        """Probabilities, for the faces of several frames together."""
        waiting: list[_Seen] = []

        def answered() -> Iterator[_Seen]:
            clock = time.perf_counter()
            crops = [face.crop for seen in waiting for _, _, face in seen.faces]
            scores = self.recognizer.classifier.probabilities(crops)
            first = 0
            for seen in waiting:
                seen.probabilities = scores[first : first + len(seen.faces)]
                first += len(seen.faces)
            self.stages["classify"] += time.perf_counter() - clock
            yield from waiting

        for seen in frames:
            waiting.append(seen)
            if sum(len(one.faces) for one in waiting) >= _BATCH or len(waiting) >= _MOST_AHEAD:
                yield from answered()
                waiting = []
        yield from answered()

    def _rows(self, seen: _Seen) -> Iterator[dict[str, Any]]:
        model = self.recognizer.model
        base: dict[str, Any] = {
            "uri": self.video.uri,
            "etag": self.video.etag,
            "media": "video",
            "width": self.video.info.width,
            "height": self.video.info.height,
            "frame": seen.frame.index,
            "timestamp": seen.frame.time,
            "detector": self.detector.name,
            "faces_digest": self._digest(),
            "model_name": model.name,
            "model_version": model.version,
            "model_digest": model.digest,
            "run_id": self.run_id,
            "analysed_at": datetime.now(UTC),
        }
        if seen.frame.pixels is None:
            yield base | {"quality_marks": [CORRUPT]}
        elif not seen.faces:
            yield base
        answers = zip(seen.faces, seen.probabilities, strict=True)
        for place, ((track, detected, face), scores) in enumerate(answers):
            found = face_columns(place, face.detection, face.quality, Prediction.of(scores))
            # What was carried from an earlier frame has that frame's score, not one of its own.
            score = face.detection.score if detected else None
            yield base | found | {"track": track, "detection_score": score}

    def _write(
        self, results: VideoResults, part: int, rows: list[dict[str, Any]], state: State
    ) -> None:
        clock = time.perf_counter()
        results.write_part(part, rows, state)
        self.stages["write"] += time.perf_counter() - clock

    def _digest(self) -> str:
        import json

        return hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode()).hexdigest()[:16]

    def _room(self) -> int:
        """How many decoded frames may wait."""
        grey = max(1, self.video.info.width * self.video.info.height)
        each = grey * (4 if self.detector.colour else 1)
        return max(4, min(_MOST_AHEAD, _AHEAD_BYTES // each))


def _workers() -> int:
    from fer.settings import settings

    return settings().threads or os.cpu_count() or 1
