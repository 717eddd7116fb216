"""One analysis of a video under way: stages in threads, a bounded number of frames apart."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.faces.cuts import SceneCuts
from fer.faces.finder import found_face
from fer.faces.looks import Looks
from fer.faces.tracker import Tracked, Tracker
from fer.inference.ahead import ahead
from fer.inference.keyframes import Keyframes, Sighting
from fer.inference.recognizer import Prediction, Recognizer
from fer.inference.results import face_columns
from fer.inference.video_file import Frame, VideoFile
from fer.inference.video_parts import State, VideoResults

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer.faces.detector import Detection, Detector, Image
    from fer.params import VideoParams

CORRUPT = "corrupt"
"""The mark of a frame that the decoder could not give."""

_AHEAD_BYTES = 96 << 20  # that waiting frames may take together
_MOST_AHEAD = 32
_SHOWN = np.zeros((0, 0, 3), np.uint8)  # in the place of pixels that were there
_BATCH = 16  # faces: larger batches gain little

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all."""


@dataclass
class _Seen:
    """One frame on its way: decoded, then with faces, whose probabilities come last."""

    frame: Frame
    grey: Image | None = None
    detections: Future[list[Detection]] | None = None
    cut: bool = False
    fresh: bool = False
    state: State | None = None  # before this frame, where a part begins
    faces: tuple[Sighting, ...] = ()


class VideoRun:
    """What turns one video into rows; `go` does it.

    Args:
        video: the file.
        recognizer: model and `faces` parameters.
        params: sampling and tracking.
        wanted: indices of the frames to analyse, ascending.
        part_frames: of these, how many a part of the results holds.
    """

    def __init__(
        self,
        video: VideoFile,
        recognizer: Recognizer,
        params: VideoParams,
        wanted: NDArray[np.int64],
        part_frames: int,
    ) -> None:
        self.video, self.recognizer, self.params = video, recognizer, params
        self.wanted, self.part_frames = wanted, part_frames
        faces = recognizer.faces
        self.looks = Looks(params, faces)
        self.detector: Detector = self.looks.close
        self.landmarks = recognizer.landmarks
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.stages = {"decode": 0.0, "detect": 0.0, "track": 0.0, "classify": 0.0, "write": 0.0}
        self._counting = threading.Lock()
        self.resumed = 0
        self._settings = {
            "faces": faces.model_dump(mode="json"),
            "video": params.model_dump(mode="json", exclude={"timeline"}),
        }
        document = json.dumps(self._settings, sort_keys=True).encode()
        self._digest = hashlib.sha256(document).hexdigest()[:16]

    def job(self, start: float | None, end: float | None) -> dict[str, Any]:
        """All that decides the rows."""
        return self._settings | {
            "uri": self.video.uri,
            "etag": self.video.etag,
            "model": self.recognizer.model.digest,
            "pose": self.landmarks is not None,
            "start": start,
            "end": end,
            "part_frames": self.part_frames,
        }

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
            # Whoever ends it early waits for the detections under way, not for those in the queue.
            call_off = partial(pool.shutdown, wait=False, cancel_futures=True)
            classified = ahead(self._classified(tracked), _MOST_AHEAD, "classify", call_off)
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
        if state:
            self.looks.resume(state["looked"])
        fresh = False  # a part begins: nothing but the state is taken over from the part before
        clock = time.perf_counter()
        for position, frame in enumerate(self.video.frames(self.wanted[first:]), start=first):
            begins = position % self.part_frames == 0
            fresh = fresh or begins
            seen = _Seen(frame, fresh=fresh)
            if begins and position:
                seen.state = {"thumbnail": cuts.last, "looked": self.looks.state}
            if frame.pixels is not None:
                pixels = frame.pixels
                seen.grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
                seen.cut = cuts.is_cut(seen.grey)
                if detector := self.looks.due(frame.time, anew=seen.cut or seen.fresh):
                    image = seen.grey
                    if detector.colour:
                        image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
                    seen.detections = pool.submit(self._detect, detector, image)
                fresh = False
                # The colours are not needed any more, and take three quarters of the memory.
                seen.frame = Frame(frame.index, frame.time, _SHOWN)
            self.stages["decode"] += time.perf_counter() - clock
            yield seen
            clock = time.perf_counter()

    def _detect(self, detector: Detector, image: Image) -> list[Detection]:
        clock = time.perf_counter()
        found = detector.detect(image)
        with self._counting:  # several threads detect
            self.stages["detect"] += time.perf_counter() - clock
        return found

    def _tracked(
        self, frames: Iterator[_Seen], state: State | None
    ) -> Generator[_Seen, None, None]:
        """Faces with numbers, quality and crop."""
        params = self.params
        if len(self.wanted) > 1:
            # Two frames in a row may be further apart than anybody may be missing: at a low rate,
            # and in a time-lapse.
            times = np.frombuffer(self.video.times, np.float64)[self.wanted]
            longest = max(params.max_missing, 2 * float(np.median(np.diff(times))))
            params = params.model_copy(update={"max_missing": longest})
        tracker = Tracker(params, self.looks)
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
                seen.faces = tuple(self._sighting(seen.grey, one, seen.frame) for one in tracked)
                seen.grey = seen.detections = None
                self.stages["track"] += time.perf_counter() - clock
            yield seen

    def _sighting(self, grey: Image, one: Tracked, frame: Frame) -> Sighting:
        faces = self.recognizer.faces
        face = found_face(grey, one.box, faces.margin, landmarks=self.landmarks, align=faces.align)
        return Sighting(one.track, frame.time, one.detected, face)

    def _classified(self, frames: Iterator[_Seen]) -> Generator[_Seen, None, None]:
        """Probabilities of each face; the key frames of several frames are classified together."""
        keyframes = Keyframes(self.params.classify_interval)
        waiting: deque[_Seen] = deque()
        chosen: list[Sighting] = []
        for seen in frames:
            if seen.state is not None:  # a part begins, and must know nothing of the one before
                chosen += keyframes.close()
            chosen += keyframes.update(seen.faces)
            waiting.append(seen)
            if len(chosen) >= _BATCH or len(waiting) >= _MOST_AHEAD:
                self._classify(chosen)
                chosen = []
                while waiting and all(one.known for one in waiting[0].faces):
                    yield waiting.popleft()
        self._classify(chosen + keyframes.close())
        yield from waiting

    def _classify(self, chosen: list[Sighting]) -> None:
        clock = time.perf_counter()
        crops = [one.face.crop for one in chosen]
        for one, scores in zip(
            chosen, self.recognizer.classifier.probabilities(crops), strict=True
        ):
            one.scores = scores
        self.stages["classify"] += time.perf_counter() - clock

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
            "faces_digest": self._digest,
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
        for place, one in enumerate(seen.faces):
            face = one.face
            found = face_columns(
                place, face.detection, face.quality, Prediction.of(one.probabilities)
            )
            # What was carried from an earlier frame has that frame's score, not one of its own.
            score = face.detection.score if one.detected else None
            of_video = {"track": one.track, "detection_score": score}
            yield base | found | of_video | {"classified": one.scores is not None}

    def _write(
        self, results: VideoResults, part: int, rows: list[dict[str, Any]], state: State
    ) -> None:
        clock = time.perf_counter()
        results.write_part(part, rows, state)
        self.stages["write"] += time.perf_counter() - clock

    def _room(self) -> int:
        """How many decoded frames may wait."""
        grey = max(1, self.video.info.width * self.video.info.height)
        each = grey * (4 if self.detector.colour else 1)
        return max(4, min(_MOST_AHEAD, _AHEAD_BYTES // each))


def _workers() -> int:
    from fer.settings import settings

    return settings().threads or os.cpu_count() or 1
