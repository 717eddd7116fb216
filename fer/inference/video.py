"""Who showed which expression when: a video in, one row per face and frame out.

Decoding, detection, tracking and classification overlap in threads, a bounded number of frames
apart, so memory depends on the frame size and not on the length. Detection runs on frames that
the parameters fix, never on how busy the machine is: the same video gives the same rows, and a
run that was killed and goes on gives those of one that was not.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.errors import UsageError
from fer.inference.recognizer import Recognizer
from fer.inference.timeline import episodes_of
from fer.inference.video_file import VideoFile
from fer.inference.video_parts import VideoResults
from fer.inference.video_run import Progress, VideoRun

if TYPE_CHECKING:
    from fer.params import VideoParams

PART_FRAMES = 900
"""Analysed frames per part: what a killed run may have to do again; half a minute of video."""


@dataclass
class VideoSummary:
    """What one analysis did. `NAME.json` beside the results holds it.

    Attributes:
        run_id: of the run that came to the end; rows from before a kill have another.
        frames: analysed frames, each with at least one row.
        resumed: of these, what an earlier, killed run had done.
        faces: rows with a face; `carried` of them between two detections, `classified` of them
            seen by the model, the others between two that were.
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
    classified: int = 0
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
        UsageError: the range lies outside the video; or a file that would be written is there,
            and is the video itself, of another video, or of something else.
        DetectorError: the detector's library or model file is missing.
        ConflictError: another run is writing the same output.
        StoreError: the overlay cannot be written.
    """
    if part_frames < 1:
        raise UsageError(f"part_frames is {part_frames}; it must be at least 1.")
    if params is None:
        from fer.params import VideoParams

        params = VideoParams()
    target = Path(output).expanduser()
    if target.suffix != ".parquet":
        raise UsageError(f"{output} does not end with .parquet. Name the results so.")
    if overlay is not None:
        from fer.inference.overlay import check_overlay, render_overlay

        check_overlay(path, Path(overlay))
    begun = time.monotonic()
    with VideoFile(path) as video:
        wanted = video.choose(start, end, params.sample_fps)
        run = VideoRun(video, recognizer, params, wanted, part_frames)
        results = VideoResults(target, run.job(start, end))
        results.check_names(csv)
        summary = _begun(run, target)
        if results.finished():
            summary.finished_before = True
        else:
            with results.only_writer():
                run.go(results, progress)
            summary.resumed = run.resumed
            if video.changed():
                summary.warnings.append(
                    f"{path} was changed or moved while it was analysed. If its content is another "
                    "one now, analyse it again."
                )
    summary.run_id = results.last_run()
    counts = results.counts()
    summary.frames, summary.faces, summary.carried = counts.frames, counts.faces, counts.carried
    summary.classified = counts.classified
    summary.tracks, summary.without_face = counts.tracks, counts.without_face
    summary.corrupt = counts.corrupt
    if counts.corrupt:
        summary.warnings.append(f"{counts.corrupt} frames could not be decoded; they are marked.")
    summary.episodes = [
        one.as_dict() for one in episodes_of(results.timeline_tables(), params.timeline)
    ]
    summary.stages = {name: round(spent, 3) for name, spent in run.stages.items()}
    summary.seconds = round(time.monotonic() - begun, 3)
    done = 0 if summary.finished_before else len(wanted) - run.resumed
    summary.frames_per_second = round(done / summary.seconds, 2) if summary.seconds else 0.0
    results.write_beside(summary.as_dict())
    if csv:
        results.write_csv(target.with_suffix(".csv"))
    if overlay is not None:
        render_overlay(path, results, Path(overlay), params.timeline, progress)
    return summary


def _begun(run: VideoRun, target: Path) -> VideoSummary:
    """What is known before the first frame."""
    info, model = run.video.info, run.recognizer.model
    last = int(run.wanted[-1])
    after = run.video.times[last + 1] if last + 1 < info.frames else info.duration
    warnings = []
    if info.declared - info.frames > max(5, info.declared // 100):
        warnings.append(
            f"The file promises {info.declared} frames and holds {info.frames}: it is "
            "truncated or damaged. What is there was analysed."
        )
    return VideoSummary(
        run_id=run.run_id,
        video=run.video.uri,
        results=str(target),
        model_name=model.name,
        model_version=model.version,
        model_digest=model.digest,
        detector=run.detector.name,
        width=info.width,
        height=info.height,
        fps=info.fps,
        duration=info.duration,
        codec=info.codec,
        start=run.video.times[int(run.wanted[0])],
        end=after,
        warnings=warnings,
    )
