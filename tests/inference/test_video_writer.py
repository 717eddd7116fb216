"""Videos that are written whole or not at all, at any rate that a video may have."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fer.errors import StoreError, UsageError
from fer.inference.screen import Recording
from fer.inference.video_file import VideoFile
from fer.inference.video_writer import VideoWriter, check_source

SIZE = (320, 240)


def noise(count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_video_appears_when_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.mp4"
    with VideoWriter(target, 20, SIZE) as writer:
        for picture in noise(7):
            writer.write(picture)
        assert not target.exists()
        writer.finish()
    with VideoFile(target) as video:
        assert (video.info.frames, video.info.fps) == (7, 20)
    assert list(target.parent.iterdir()) == [target]


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "b.mp4", 20, SIZE) as writer:
        writer.write(next(noise(1)))
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def draw(target: Path) -> None:
    with VideoWriter(target, 20, SIZE) as writer:
        for picture in noise(40):
            writer.write(picture)
        writer.finish()


def record(target: Path) -> None:
    recording = Recording(target)
    try:
        for number, picture in enumerate(noise(40)):
            recording.add(picture, number / 20)
    finally:
        recording.close()


@pytest.mark.parametrize("make", [draw, record])
def test_a_full_disk_is_said_and_what_was_there_stays(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    target = tmp_path / "b.mp4"
    target.write_bytes(b"before")
    with file_limit(100_000), pytest.raises(StoreError, match="the disk is full"):
        make(target)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_recording_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Choose another folder"):
        record(tmp_path / ("a" * 250 + ".mp4"))


@pytest.mark.parametrize("fps", [0.5, 30000 / 1001, 119.8765, 239.7631, 960.123])
def test_any_rate_that_a_video_may_have(tmp_path: Path, fps: float) -> None:
    with VideoWriter(tmp_path / "b.mp4", fps, SIZE) as writer:
        assert writer.fps == pytest.approx(fps, rel=1e-3)
        for picture in noise(5):
            writer.write(picture)
        writer.finish()
    with VideoFile(tmp_path / "b.mp4") as video:
        assert video.info.frames == 5
        assert video.info.fps == pytest.approx(fps, rel=1e-3)


def test_between_two_pictures_the_first_is_recorded(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "b.mp4")
    for level, time in ((40, 0.0), (120, 0.5), (200, 1.0)):
        recording.add(np.full((48, 64, 3), level, np.uint8), time)
    recording.close()
    with VideoFile(tmp_path / "b.mp4") as video:
        levels = [frame.pixels.mean() for frame in video.frames(video.choose())]  # type: ignore[union-attr]
    assert levels == pytest.approx([40] * 10 + [120] * 10 + [200], abs=3)


def test_the_video_itself_is_known_by_any_name(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"1")
    (tmp_path / "link.mp4").symlink_to(video)
    for name in ("a.mp4", "link.mp4"):
        with pytest.raises(UsageError, match="is the video itself"):
            check_source(tmp_path / name, os.fspath(video))
    check_source(tmp_path / "b.mp4", video)
    check_source(video, "http://127.0.0.1/a.mp4")
