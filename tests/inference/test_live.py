"""Live video from a file, from a stream that breaks off and comes back, and what refuses."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import clips
import numpy as np
import pytest
from typer.testing import CliRunner

from fer.cli import app
from fer.errors import UsageError, VideoError
from fer.faces.detector import Detection
from fer.inference.camera import Camera, Shot
from fer.inference.live import STAGES, Live, LiveFrame
from fer.inference.recognizer import Recognizer
from fer.inference.screen import RECORD_FPS, Recording, open_window
from fer.inference.video_file import VideoFile
from fer.params import VideoParams


def picture(left: int) -> np.ndarray:
    frame = clips.wall(320, 220)
    clips.paste(frame, clips.person(2), left, 0)
    return frame


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a person, ten frames a second."""
    frames = [picture(10 + number) for number in range(30)]
    return clips.write(tmp_path_factory.mktemp("clip") / "clip.mp4", frames, 10)


@pytest.fixture(scope="module")
def recognizer(model: Path) -> Recognizer:
    return Recognizer.load(model)


class Shown:
    """A screen that keeps what it is shown, and ends after some pictures."""

    def __init__(self, end_after: int = 10**6) -> None:
        self.pictures: list[np.ndarray] = []
        self.end_after, self.closed = end_after, False

    def show(self, picture: np.ndarray) -> bool:
        self.pictures.append(picture.copy())
        return len(self.pictures) < self.end_after

    def close(self) -> None:
        self.closed = True


def test_a_file_is_played_at_its_own_pace_to_its_end(
    clip: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    seen: list[LiveFrame] = []
    screen, out = Shown(), tmp_path / "out.mp4"
    opened = time.perf_counter()  # it plays from here, while the detector is still being made
    with Camera(str(clip)) as camera:
        live = Live(camera, recognizer, screen=screen, recording=Recording(out))
        report = live.run(on_frame=seen.append)
    assert time.perf_counter() - opened > 2.7
    assert report.frames + report.passed_over == 30
    assert report.frames == len(seen) <= len(screen.pictures)
    assert screen.closed
    assert set(report.latency_ms) <= set(STAGES)
    with VideoFile(out) as video:
        assert video.info.fps == RECORD_FPS
        assert video.info.duration == pytest.approx(seen[-1].time - seen[0].time, abs=0.11)


def test_the_face_is_found_where_it_is_and_drawn(recognizer: Recognizer, tmp_path: Path) -> None:
    still = clips.write(tmp_path / "still.mp4", [picture(60)] * 10, 10)
    screen = Shown()

    def watch(frame: LiveFrame) -> None:
        if frame.faces:
            found.append((frame, screen.pictures[-1]))
        if len(found) == 3:
            screen.end_after = 0

    found: list[tuple[LiveFrame, np.ndarray]] = []
    with Camera(str(still), repeat=True) as camera:
        # A busy machine may take seconds to detect; the person is the same all the same.
        params = VideoParams(max_carried=60, max_missing=60)
        report = Live(camera, recognizer, params, screen=screen).run(seconds=400, on_frame=watch)
    last, drawn = found[-1]
    (one,), face = last.faces, clips.person(2).face
    assert one.track == 0
    assert (one.box.left + one.box.right) / 2 == pytest.approx(
        60 + (face.left + face.right) / 2, abs=12
    )
    assert (report.tracks, report.returns) == (1, 0)
    plain = picture(60).astype(int)
    top, left = round(one.box.top) + 10, round(one.box.left)
    edge = np.abs(drawn - plain)[top : top + 40, left - 1 : left + 2].max(axis=(1, 2))
    assert (edge > 50).mean() > 0.5


def test_the_user_ends_it_in_the_window(clip: Path, recognizer: Recognizer) -> None:
    with Camera(str(clip), repeat=True) as camera:
        report = Live(camera, recognizer, screen=Shown(end_after=3)).run()
    assert report.frames == 3


class Stream:
    """A camera on the network, Motion JPEG over HTTP, that can be unplugged."""

    def __init__(self) -> None:
        import cv2

        _, jpeg = cv2.imencode(".jpg", picture(60))
        body = jpeg.tobytes()
        plugged = self.plugged = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not plugged.is_set():
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
                self.end_headers()
                try:
                    while plugged.is_set():
                        head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
                        self.wfile.write(f"{head}\r\n\r\n".encode() + body + b"\r\n")
                        time.sleep(0.03)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/cam.mjpg"

    @contextmanager
    def serving(self) -> Iterator[str]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.plugged.set()
        try:
            yield self.url
        finally:
            self.plugged.clear()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def test_a_camera_that_is_unplugged_and_comes_back(recognizer: Recognizer) -> None:
    stream, seen = Stream(), []
    signals: list[bool] = []
    screen = Shown()
    with stream.serving() as url, Camera(url, retry=0.1) as camera:

        def watch(frame: LiveFrame) -> None:
            seen.append(frame)
            if len(seen) == 5:
                stream.plugged.clear()
                threading.Timer(1.5, stream.plugged.set).start()
            if camera.returns:
                screen.end_after = min(screen.end_after, len(screen.pictures) + 15)

        live = Live(camera, recognizer, screen=screen)
        report = live.run(seconds=400, on_frame=watch, on_signal=signals.append)
    assert report.returns == 1
    assert signals == [False, True]
    assert report.frames > 5
    assert len(screen.pictures) > report.frames  # the dark ones, without a signal
    assert seen[-1].faces


class Fed:
    """A camera that gives the pictures it is fed; at None it is away for 0.2 s."""

    source = "fed"

    def __init__(self, steps: Iterator[np.ndarray | None]) -> None:
        self.steps = steps
        self.lost, self.ended = False, False
        self.returns = self.number = 0
        self.begun = time.perf_counter()

    def latest(self, after: int, timeout: float) -> Shot | None:
        step = next(self.steps, self)
        if step is self:
            self.ended = True
            return None
        if step is None:
            self.lost = True
            time.sleep(0.2)
            return None
        self.returns += self.lost
        self.lost = False
        self.number += 1
        now = time.perf_counter()
        return Shot(self.number, now - self.begun, now, step.copy())  # type: ignore[union-attr]


def test_an_absence_is_recorded_as_it_passes(recognizer: Recognizer, tmp_path: Path) -> None:
    out, bright = tmp_path / "out.mp4", np.full((120, 160, 3), 200, np.uint8)

    def steps() -> Iterator[np.ndarray | None]:
        yield from [bright] * 3 + [None] * 6
        for _ in range(3):
            yield bright
            time.sleep(0.1)

    live = Live(Fed(steps()), recognizer, recording=Recording(out))  # type: ignore[arg-type]
    assert live.run().frames == 6
    with VideoFile(out) as video:
        levels = [np.median(frame.pixels) for frame in video.frames(video.choose())]  # type: ignore[arg-type]
    dark = [level for level in levels if level < 130]
    assert len(dark) > 14  # of 24 that pass in 1.2 s
    assert levels[0] > 180
    assert levels[-1] > 180


def test_a_source_may_come_back_in_another_size(recognizer: Recognizer) -> None:
    small = np.ascontiguousarray(picture(60)[::2, ::2])

    def steps() -> Iterator[np.ndarray | None]:
        for _ in range(5000):
            yield picture(60)
            if live.report.faces > 3:
                break
            time.sleep(0.02)
        yield from [small, small, None, picture(60), picture(60)]

    live = Live(Fed(steps()), recognizer)  # type: ignore[arg-type]
    report = live.run()
    assert report.faces > 3
    assert report.returns == 1


@pytest.mark.parametrize("away", [[None], [], ["black"]], ids=["away", "here", "cut"])
def test_a_detection_from_before_an_absence_is_not_carried_on(
    recognizer: Recognizer, away: list[object]
) -> None:
    asked, answer = [], threading.Event()

    def detect(*_: object) -> list[Detection]:
        asked.append(1)
        if len(asked) > 1:
            return []
        answer.wait(60)
        return [clips.person(2).face]

    def steps() -> Iterator[np.ndarray | None]:
        here = clips.wall(320, 220)
        clips.paste(here, clips.person(2), 0, 0)
        yield here
        if away == ["black"]:  # a picture of another scene
            yield np.ascontiguousarray(255 - here[::-1])
        else:
            yield from [None for _ in away]
        yield here
        answer.set()
        for _ in range(300):
            yield here
            if len(asked) > 1 or live.report.faces:
                break
            time.sleep(0.02)
        yield here

    live = Live(Fed(steps()), recognizer)  # type: ignore[arg-type]
    live._detect = detect  # type: ignore[method-assign]
    report = live.run()
    assert len(asked) > 1 or report.faces
    assert bool(report.faces) == (not away)


def test_an_interrupt_leaves_a_full_report(
    clip: Path, model: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(frame: LiveFrame) -> None:
        if live.report.frames == 13:
            raise KeyboardInterrupt

    with Camera(str(clip), repeat=True) as camera:
        live = Live(camera, recognizer)
        with pytest.raises(KeyboardInterrupt):
            live.run(on_frame=stop)
    assert live.report.seconds > 1
    assert live.report.frames_per_second > 0
    assert live.report.latency_ms["latency"]["p50"] > 0

    def interrupted(self: object, frame: LiveFrame) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fer.cli.live._Printer.__call__", interrupted)
    arguments = ["live", str(clip), "--model", str(model), "--no-window", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["frames"] == 1
    assert document["seconds"] > 0


def test_a_file_goes_on_after_a_damaged_frame(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 6 * number, np.uint8) for number in range(40)]
    path = clips.write(tmp_path / "a.avi", frames, 40, "MJPG")
    clips.blank_frame(path, 10)
    clips.blank_frame(path, 11)
    last = 0
    with Camera(str(path)) as camera:
        while not camera.ended:
            shot = camera.latest(last, 5)
            last = shot.number if shot else last
    assert last == 38


def test_a_source_that_breaks_is_an_error_and_not_a_wait_for_ever(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "short.mp4"
    clips.write(path, [picture(10)] * 3, 10)

    def take_all(camera: Camera) -> None:
        number = 0
        while not camera.ended:
            shot = camera.latest(number, 5)
            number = shot.number if shot else number
        camera.latest(number, 5)

    with Camera(str(path), repeat=True) as camera:
        path.unlink()
        with pytest.raises(VideoError, match=r"cannot be opened again"):
            take_all(camera)
    frames = [np.full((48, 64, 3), 100, np.uint8)] * 3
    broken = clips.write(tmp_path / "broken.avi", frames, 40, "MJPG")
    for number in range(3):
        clips.blank_frame(broken, number)
    with Camera(str(broken)) as camera, pytest.raises(VideoError, match=r"no frame of .* decoded"):
        take_all(camera)

    def fail(camera: Camera) -> None:
        raise OSError("out of order")

    monkeypatch.setattr(Camera, "_keep_pace", fail)
    with Camera(str(clip)) as camera, pytest.raises(VideoError, match="out of order"):
        take_all(camera)


def test_the_command_says_that_the_source_is_away_and_back(
    clip: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Live, **calls: Callable[[bool], None]) -> None:
        calls["on_signal"](False)
        calls["on_signal"](True)
        raise VideoError("gone")

    monkeypatch.setattr(Live, "run", away)
    arguments = ["live", str(clip), "--model", str(model), "--no-window", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert str(result.exception) == "gone"
    assert json.loads(result.stdout)["frames"] == 0  # the report comes all the same
    assert "No signal" in result.stderr
    assert "is back" in result.stderr


def test_the_file_that_is_played_is_not_recorded_over(clip: Path, model: Path) -> None:
    before = clip.read_bytes()
    arguments = ["live", str(clip), "--model", str(model), "--no-window", "--record", str(clip)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert "is the video itself" in str(result.exception)
    assert clip.read_bytes() == before


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    for source, words in (
        ("97", "Camera 97 cannot be opened"),
        (str(tmp_path / "empty.mp4"), "0 bytes"),
        (str(tmp_path / "none.mp4"), "There is no"),
        ("http://127.0.0.1:9/none", "does not answer"),
    ):
        with pytest.raises(VideoError, match=words):
            Camera(source)
    with pytest.raises(UsageError, match=r"\.mp4"):
        Recording(tmp_path / "out.gif")


def test_without_a_display_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_window() == (None, "there is no display (DISPLAY is unset)")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("DISPLAY", ":98765.0")
        assert open_window() == (
            None, "the display :98765.0, which DISPLAY names, does not answer"
        )  # fmt: skip


def test_the_command_runs_without_a_display_and_says_so(
    clip: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    arguments = ["live", str(clip), "--model", str(model)]
    out = tmp_path / "out.mp4"
    result = CliRunner().invoke(app, [*arguments, "--record", str(out), "--seconds", "1.5"])
    assert result.exit_code == 0, result.output
    assert "No window: there is no display" in result.stderr
    assert "frames/s" in result.stdout
    assert out.exists()


def test_the_benchmark_prints_percentiles(clip: Path, model: Path) -> None:
    arguments = ["live", str(clip), "--model", str(model), "--benchmark", "20"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["frames"] == 20  # the file is played as often as that takes
    latency = document["latency_ms"]
    assert {"wait", "track", "classify", "draw", "latency", "detect"} == set(latency)
    assert 0 < latency["latency"]["p50"] <= latency["latency"]["p95"] <= latency["latency"]["max"]
