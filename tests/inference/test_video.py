"""Whole videos: every frame in the results, changes dated, a kill survived, bad files named."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from fer.cli import app
from fer.errors import ConflictError, DetectorError, UsageError, VideoError
from fer.expressions import EXPRESSIONS
from fer.inference.recognizer import Recognizer
from fer.inference.results import results_schema
from fer.inference.video import VideoSummary, analyze_video
from fer.inference.video_file import VideoFile
from fer.inference.video_parts import VideoResults, read_video
from fer.params import TimelineParams, VideoParams

FRAMES, FIRST, CHANGE, FPS = 48, 6, 27, 20
# The stand-in model is sure of nothing: its best answer is some 50 %.
PARAMS = VideoParams(timeline=TimelineParams(enter=0.4, leave=0.3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody for 6 frames, then a person who moves and, from frame 27 on, has less light."""
    frames = []
    for number in range(FRAMES):
        frame = clips.wall(440, 240)
        if number >= FIRST:
            clips.paste(frame, clips.person(2), 20 + number, 0, 1.0 if number < CHANGE else 0.6)
        frames.append(frame)
    return clips.write(tmp_path_factory.mktemp("clip") / "clip.mp4", frames, FPS)


@pytest.fixture(scope="module")
def recognizer(model: Path) -> Recognizer:
    return Recognizer.load(model)


@pytest.fixture(scope="module")
def whole(
    clip: Path, recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory
) -> VideoSummary:
    """The clip analysed without a break, in parts of 15 frames."""
    return analyze_video(
        clip,
        recognizer,
        tmp_path_factory.mktemp("whole") / "clip.parquet",
        params=PARAMS,
        part_frames=15,
    )


def rows(summary: VideoSummary) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = read_video(Path(summary.results)).to_pylist()
    return listed


def test_every_frame_is_there_with_its_time(whole: VideoSummary, clip: Path) -> None:
    listed = rows(whole)
    assert [row["frame"] for row in listed] == list(range(FRAMES))
    assert [row["timestamp"] for row in listed] == pytest.approx([f / FPS for f in range(FRAMES)])
    assert all(row["media"] == "video" and row["uri"] == clip.as_uri() for row in listed)
    nobody = listed[:FIRST]
    assert all(row["face"] is None and row["track"] is None for row in nobody)
    assert all(row["quality_marks"] is None for row in nobody)
    # The person is found at the first detection after appearing, or at the cut.
    present = listed[FIRST + 4 :]
    assert all(row["track"] == 0 and row["face"] == 0 for row in present)
    assert (whole.frames, whole.tracks, whole.corrupt) == (FRAMES, 1, 0)
    assert whole.faces + whole.without_face == FRAMES
    detected = [row for row in listed if row["detection_score"] is not None]
    assert 0 < len(detected) == whole.faces - whole.carried < FRAMES / 2


def test_a_carried_box_stays_on_the_face(whole: VideoSummary) -> None:
    for row in rows(whole)[FIRST + 4 :]:
        face = clips.person(2).face
        middle = (row["box_left"] + row["box_right"]) / 2
        assert middle == pytest.approx((face.left + face.right) / 2 + 20 + row["frame"], abs=14)


def test_a_change_is_dated_within_three_frames(whole: VideoSummary) -> None:
    before, after = whole.episodes
    listed = rows(whole)
    # Within one interval of key frames around the change, probabilities lie between the two.
    assert before["expression"] == listed[CHANGE - 2]["expression"]
    assert after["expression"] == listed[CHANGE + 2]["expression"]
    assert after["start"] == pytest.approx(CHANGE / FPS, abs=3 / FPS)
    assert before["end"] == pytest.approx(CHANGE / FPS, abs=3 / FPS)
    path = Path(whole.results)
    with path.with_suffix(".episodes.csv").open() as file:
        assert [row["expression"] for row in csv.DictReader(file)] == [
            before["expression"], after["expression"]
        ]  # fmt: skip
    assert json.loads(path.with_suffix(".json").read_text())["episodes"] == whole.episodes


def test_between_key_frames_probabilities_are_interpolated(
    whole: VideoSummary, clip: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    every = PARAMS.model_copy(update={"classify_interval": 0.0})
    target = tmp_path / "clip.parquet"
    dear = analyze_video(clip, recognizer, target, params=every, part_frames=15)
    assert dear.classified == dear.faces == whole.faces
    faces = [row for row in rows(whole) if row["face"] is not None]
    # Every other frame at 20 frames/s, and where a part of 15 frames begins and ends.
    assert len(faces) / 2 <= sum(row["classified"] for row in faces) == whole.classified
    assert whole.classified < 0.7 * len(faces)
    for row, other in zip(rows(whole), rows(dear), strict=True):
        scores = np.array(
            [[one[f"p_{name}"] for name in EXPRESSIONS] for one in (row, other)], float
        )
        if row["classified"]:
            np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
        elif row["face"] is not None:
            assert scores[0].sum() == pytest.approx(1, abs=1e-5)
            assert row["expression"] == EXPRESSIONS[int(scores[0].argmax())]
    assert [one["expression"] for one in dear.episodes] == [
        one["expression"] for one in whole.episodes
    ]


def test_the_file_is_of_the_schema_in_row_groups(whole: VideoSummary) -> None:
    path = Path(whole.results)
    assert pq.read_schema(path).equals(results_schema())
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 4
    assert not path.with_name(f"{path.name}.parts").exists()


@pytest.mark.parametrize("stop", [5, 34])
def test_a_killed_run_goes_on_to_the_same_rows(
    clip: Path, recognizer: Recognizer, whole: VideoSummary, tmp_path: Path, stop: int
) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        assert total == FRAMES
        if done == stop:
            raise Killed

    target = tmp_path / "clip.parquet"
    with pytest.raises(Killed):
        analyze_video(clip, recognizer, target, params=PARAMS, part_frames=15, progress=kill)
    assert not target.exists()
    again = analyze_video(clip, recognizer, target, params=PARAMS, part_frames=15)
    assert again.resumed == stop // 15 * 15
    ours, theirs = rows(again), rows(whole)
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            if name not in {"run_id", "analysed_at"}:
                near = isinstance(value, float)
                assert one[name] == (pytest.approx(value, abs=1e-5) if near else value), name
    assert again.episodes == [pytest.approx(one) for one in whole.episodes]


def test_a_finished_video_is_not_repeated_and_its_timeline_is_made_anew(
    clip: Path, recognizer: Recognizer, whole: VideoSummary
) -> None:
    timeline = PARAMS.timeline.model_copy(update={"min_episode": 60.0})
    params = PARAMS.model_copy(update={"timeline": timeline})
    target, changed = Path(whole.results), Path(whole.results).stat().st_mtime_ns
    again = analyze_video(clip, recognizer, target, params=params, part_frames=15)
    assert again.finished_before
    assert again.run_id == whole.run_id == rows(whole)[-1]["run_id"]
    assert again.episodes == []
    assert target.stat().st_mtime_ns == changed
    assert not VideoResults(target, {"another": "job"}).finished()


def test_a_range_at_a_lower_rate_as_csv(clip: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    params = VideoParams(sample_fps=5.0, detect_interval=0.0)
    target = tmp_path / "a" / "clip.parquet"
    summary = analyze_video(
        clip, recognizer, target, start=0.5, end=1.5, params=params, csv=True, part_frames=2
    )
    listed = rows(summary)
    assert [row["frame"] for row in listed] == [10, 14, 18, 22, 26]
    assert summary.carried == 0
    assert (summary.start, summary.end) == pytest.approx((0.5, 27 / FPS))
    with target.with_suffix(".csv").open() as file:
        written = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in written] == [10, 14, 18, 22, 26]
    assert list(written[0]) == results_schema().names


def test_corrupt_frames_are_marked_and_the_rest_is_done(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    frames = []
    for number in range(12):
        frame = clips.wall(240, 220)
        clips.paste(frame, clips.person(2), 10 + number, 0)
        frames.append(frame)
    path = clips.write(tmp_path / "a.avi", frames, 20, "MJPG")
    clips.blank_frame(path, 5)
    summary = analyze_video(path, recognizer, tmp_path / "a.parquet")
    listed = rows(summary)
    assert [row["frame"] for row in listed] == list(range(12))
    assert listed[5]["quality_marks"] == ["corrupt"]
    assert listed[5]["face"] is None
    assert [row["track"] for row in listed[6:]] == [0] * 6
    assert summary.corrupt == 1
    assert "could not be decoded" in summary.warnings[0]


def test_an_overlay_shows_the_boxes_at_the_right_times(
    clip: Path, recognizer: Recognizer, whole: VideoSummary, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    analyze_video(clip, recognizer, whole.results, params=PARAMS, part_frames=15, overlay=out)
    with VideoFile(out) as drawn, VideoFile(clip) as plain:
        assert drawn.info.frames == FRAMES
        assert drawn.info.fps == pytest.approx(FPS)
        pairs = zip(drawn.frames([0, 40]), plain.frames([0, 40]), strict=True)
        changes = [np.abs(a.pixels.astype(int) - b.pixels).max(axis=2) > 60 for a, b in pairs]  # type: ignore[union-attr]
    row = rows(whole)[40]
    left, top, bottom = (round(row[f"box_{name}"]) for name in ("left", "top", "bottom"))
    assert changes[1][top + 10 : bottom - 10, left - 1 : left + 2].any(axis=1).mean() > 0.25
    assert changes[0][60:].mean() < 0.01
    assert [one.name for one in tmp_path.iterdir()] == ["out.mp4"]


def test_an_overlay_that_makes_no_sense_is_refused_before_the_analysis(
    clip: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    before = clip.read_bytes()
    target = tmp_path / "clip.parquet"
    for overlay, words in (("out.avi", r"\.mp4"), (clip, "is the video itself")):
        with pytest.raises(UsageError, match=words):
            analyze_video(clip, recognizer, target, overlay=overlay)
    assert list(tmp_path.iterdir()) == []
    assert clip.read_bytes() == before


def test_an_overlay_of_frames_that_are_minutes_apart(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    slow = clips.write(tmp_path / "slow.mp4", [clips.wall(64, 48)] * 3, 1)
    clips.set_durations(slow, [16384 * 1200] * 3)  # OpenCV's time scale is 1/16384 s at 1 frame/s
    out = tmp_path / "out.mp4"
    analyze_video(slow, recognizer, tmp_path / "slow.parquet", overlay=out)
    with VideoFile(out) as drawn:
        assert drawn.info.duration == pytest.approx(3600)


def test_files_of_another_video_or_of_somebody_else_stay(
    clip: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    (tmp_path / "p2").mkdir()
    other = tmp_path / "p2" / clip.name
    other.write_bytes(clip.read_bytes())
    target = tmp_path / "out" / "clip.parquet"
    params = VideoParams(sample_fps=2.0)

    class Killed(BaseException):
        pass

    def kill(done: int, _: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        analyze_video(clip, recognizer, target, params=params, part_frames=2, progress=kill)
    with pytest.raises(UsageError, match="is of another video"):
        analyze_video(other, recognizer, target, params=params, part_frames=2)
    first = analyze_video(clip, recognizer, target, params=params, part_frames=2, csv=True)
    assert first.resumed == 2
    before = {one: one.read_bytes() for one in target.parent.iterdir()}
    with pytest.raises(UsageError, match="is of another video"):
        analyze_video(other, recognizer, target, params=params, csv=True)
    assert {one: one.read_bytes() for one in target.parent.iterdir()} == before
    # What is ours may be made anew, of other parameters too.
    analyze_video(clip, recognizer, target, params=VideoParams(sample_fps=4.0), csv=True)
    for name in (".json", ".csv", ".episodes.csv", ".parquet"):
        theirs = (tmp_path / "theirs" / "clip").with_suffix(name)
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("time,pupil\n0,3.1\n")
        with pytest.raises(UsageError, match="is no result of"):
            analyze_video(clip, recognizer, theirs.with_suffix(".parquet"), csv=True)
        assert theirs.read_text() == "time,pupil\n0,3.1\n"
        assert list(theirs.parent.iterdir()) == [theirs]
        theirs.unlink()


def test_an_interrupt_does_not_wait_for_detections_in_the_queue(
    clip: Path, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def detect(*_: object) -> list[object]:
        begun.append(time.perf_counter())
        time.sleep(0.2)
        if len(begun) == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return []

    monkeypatch.setattr("fer.faces.dlib_detector.DlibHogDetector.detect", detect)
    monkeypatch.setattr("fer.inference.video_run._workers", lambda: 1)
    params = VideoParams(detect_interval=0.0)
    # A shell that starts the tests in the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            analyze_video(clip, recognizer, tmp_path / "c.parquet", params=params)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) < 10


def test_what_goes_wrong_is_said(
    clip: Path, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"ends at 2\.4"):
        analyze_video(clip, recognizer, tmp_path / "a.parquet", start=60)
    with pytest.raises(UsageError, match=r"end with \.parquet"):
        analyze_video(clip, recognizer, tmp_path / "a.csv")
    results = VideoResults(tmp_path / "b.parquet", {})
    with results.only_writer(), pytest.raises(ConflictError):
        analyze_video(clip, recognizer, tmp_path / "b.parquet")
    monkeypatch.setattr(
        "fer.faces.dlib_detector.DlibHogDetector.detect",
        lambda *_: (_ for _ in ()).throw(DetectorError("gone")),
    )
    with pytest.raises(DetectorError, match="gone"):  # from the detection thread
        analyze_video(clip, recognizer, tmp_path / "c.parquet")


def test_a_file_that_changes_meanwhile_is_one_file_in_the_results_and_a_warning(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    frames = [clips.wall(240, 220)] * 30
    for name, change in (
        ("touched", lambda path: os.utime(path, (1, 1))),
        ("moved", lambda path: path.rename(tmp_path / "elsewhere.mp4")),
        ("left", lambda path: None),
    ):
        path = clips.write(tmp_path / f"{name}.mp4", frames, 20)

        def progress(
            done: int, total: int, path: Path = path, change: Callable[[Path], Any] = change
        ) -> None:
            if done == 3:
                change(path)

        summary = analyze_video(path, recognizer, tmp_path / f"{name}.parquet", progress=progress)
        listed = rows(summary)
        assert len(listed) == 30
        assert len({row["etag"] for row in listed}) == 1
        assert len([one for one in summary.warnings if "changed or moved" in one]) == (
            name != "left"
        )


def test_a_person_keeps_the_number_in_a_time_lapse(recognizer: Recognizer, tmp_path: Path) -> None:
    frames = []
    for number in range(8):
        frame = clips.wall(440, 240)
        clips.paste(frame, clips.person(2), 20 + number, 0)
        frames.append(frame)
    path = clips.write(tmp_path / "a.mp4", frames, 0.5)
    summary = analyze_video(path, recognizer, tmp_path / "a.parquet")
    assert [row["track"] for row in rows(summary)] == [0] * 8
    assert summary.tracks == 1


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["video", *(str(one) for one in arguments)])


def test_the_command_names_bad_files_and_does_the_rest(
    clip: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    out = tmp_path / "out"
    result = run(tmp_path / "empty.mp4", clip, "-o", out, "--model", model, "--start", "0:01",
                 "--end", "1.4", "--fps", "10", "--csv", "--json")  # fmt: skip
    assert isinstance(result.exception, VideoError)
    bad, good = json.loads(result.stdout)["videos"]
    assert "0 bytes" in bad["error"]
    assert "empty.mp4" in result.stderr
    assert good["error"] is None
    assert (good["frames"], good["start"]) == (4, 1.0)
    assert sorted(one.name for one in out.iterdir()) == [
        "clip.csv", "clip.episodes.csv", "clip.json", "clip.parquet"
    ]  # fmt: skip
    text = run(clip, "-o", out, "--model", model, "--start", "1", "--end", "1.4", "--fps", "10")
    assert text.exit_code == 0, text.output
    assert "analysed before" in text.stdout


def test_the_command_does_the_rest_where_results_cannot_be_written(
    clip: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    files = [tmp_path / name for name in ("busy.mp4", "blocked.mp4", "good.mp4")]
    for file in files:
        file.write_bytes(clip.read_bytes())
    out.mkdir()
    (out / "blocked.parquet.parts").write_text("a file where a folder must be")
    with VideoResults(out / "busy.parquet", {}).only_writer():
        result = run(*files, "-o", out, "--model", model, "--fps", "5", "--json")
    assert isinstance(result.exception, VideoError)
    assert result.exception.exit_code == 2
    assert "2 of 3" in str(result.exception)
    busy, blocked, good = json.loads(result.stdout)["videos"]
    assert "Another run" in busy["error"]
    assert "File exists. Choose another path." in blocked["error"]
    assert (good["error"], good["frames"]) == (None, 12)


def test_the_command_refuses_what_makes_no_sense(clip: Path, model: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ((clip, "--start", "1:99"), "--start is '1:99'"),
        ((clip, "--end", "soon"), "--end is 'soon'"),
        ((clip, clip), "Two of the videos"),
        ((clip, tmp_path / "b.mp4", "--overlay", "o.mp4"), "names one file"),
    ):
        result = run(*arguments, "--model", model)
        assert isinstance(result.exception, UsageError)
        assert words in str(result.exception)
