"""True times, every frame accounted for, and what cannot be read is named."""

from __future__ import annotations

import math
import os
import struct
from array import array
from pathlib import Path

import clips
import cv2
import h264
import numpy as np
import pytest

from fer.errors import UsageError, VideoError
from fer.inference.packets import _completed
from fer.inference.video_file import VideoFile


@pytest.fixture(scope="module")
def numbered() -> list[np.ndarray]:
    """Thirty frames that say by their grey level which they are."""
    return [np.full((48, 64, 3), 8 * number + 4, np.uint8) for number in range(30)]


def levels(video: VideoFile, wanted: np.ndarray) -> list[int]:
    """The number that each frame shows; -1 where it has no pixels."""
    return [
        -1 if frame.pixels is None else round((float(frame.pixels.mean()) - 4) / 8)
        for frame in video.frames(wanted)
    ]


@pytest.mark.parametrize(("codec", "suffix"), [("mp4v", "mp4"), ("MJPG", "avi"), ("FFV1", "mkv")])
def test_every_frame_with_its_time(
    tmp_path: Path, numbered: list[np.ndarray], codec: str, suffix: str
) -> None:
    with VideoFile(clips.write(tmp_path / f"a.{suffix}", numbered, 25, codec)) as video:
        assert (video.info.width, video.info.height, video.info.frames) == (64, 48, 30)
        assert video.info.fps == pytest.approx(25, rel=0.01)
        assert video.info.duration == pytest.approx(1.2, abs=0.002)
        assert list(video.times) == pytest.approx([one / 25 for one in range(30)], abs=0.001)
        assert levels(video, video.choose()) == list(range(30))


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    path = clips.write(tmp_path / "a.mp4", numbered, 30)
    with VideoFile(clips.set_durations(path, [512] * 15 + [2048] * 15)) as video:
        expected = [one / 30 for one in range(16)] + [0.5 + one * 4 / 30 for one in range(1, 15)]
        assert list(video.times) == pytest.approx(expected)
        assert levels(video, video.choose()) == list(range(30))
        # Ten a second: every third of the fast frames, all of the slow ones.
        sampled = video.choose(fps=10)
        assert sampled.tolist() == [0, 3, 6, 9, 12, *range(15, 30)]


def test_a_range_and_a_rate(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    with VideoFile(clips.write(tmp_path / "a.mp4", numbered, 30)) as video:
        chosen = video.choose(0.5, 0.8)
        assert chosen.tolist() == list(range(15, 24))
        assert levels(video, chosen) == list(range(15, 24))
        assert video.choose(fps=7.5).tolist() == list(range(0, 30, 4))
        assert video.choose(fps=1000).tolist() == list(range(30))
        assert video.choose(0.9, 99).tolist() == [27, 28, 29]
        for start, end in ((1.0, None), (5.0, 6.0), (0.5, 0.5), (-1.0, None), (0.501, 0.502)):
            with pytest.raises(UsageError):
                video.choose(start, end)


def test_a_frame_far_into_the_video_is_the_right_one(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 8 * (one % 30) + 4, np.uint8) for one in range(400)]
    with VideoFile(clips.write(tmp_path / "a.mp4", frames, 10)) as video:
        assert levels(video, np.array([3, 250, 251, 399])) == [3, 10, 11, 9]


def test_rotation_metadata_is_applied(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24] = 255  # above; turned clockwise, to the right
    with VideoFile(clips.rotate(clips.write(tmp_path / "a.mp4", [frame] * 5))) as video:
        assert (video.info.width, video.info.height, video.info.rotation) == (48, 64, 90)
        (seen,) = video.frames([2])
    assert seen.pixels is not None
    assert seen.pixels.shape == (64, 48, 3)
    assert seen.pixels[:, 30:].mean() > 240
    assert seen.pixels[:, :18].mean() < 15


def test_a_frame_that_cannot_be_decoded_is_reported_in_its_place(
    tmp_path: Path, numbered: list[np.ndarray]
) -> None:
    path = clips.write(tmp_path / "a.avi", numbered, 30, "MJPG")
    clips.blank_frame(path, 12)
    with VideoFile(path) as video:
        assert levels(video, video.choose()) == [*range(12), -1, *range(13, 30)]


def test_a_truncated_file_gives_what_it_has(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    path = clips.write(tmp_path / "a.avi", numbered, 30, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with VideoFile(path) as video:
        assert 10 < video.info.frames < 25
        assert video.info.declared == 30
        assert levels(video, video.choose())[:-1] == list(range(video.info.frames - 1))


def test_a_codec_that_opencv_lacks_is_named(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    path = clips.write(tmp_path / "a.avi", numbered, 30, "MJPG")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(VideoError, match="codec that is not built in") as caught:
        VideoFile(path)
    assert "ffmpeg -i" in str(caught.value)


def sound(path: Path) -> Path:
    """A second of silence, as WAV."""
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + 16000, b"WAVE", b"fmt ", 16, 1, 1, 8000,
                       16000, 2, 16)  # fmt: skip
    path.write_bytes(head + struct.pack("<4sI", b"data", 16000) + bytes(16000))
    return path


def test_what_is_no_video_is_named(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    whole = clips.write(tmp_path / "whole.mp4", numbered).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "text.mp4").write_text("dear diary\n" * 500)
    (tmp_path / "silent.mp4").write_bytes(
        whole.replace(b"vide", b"soun").replace(b"vmhd", b"smhd").replace(b"FMP4", b"mp4a")
    )
    sound(tmp_path / "sound.mp4")
    for name, words in {
        "empty.mp4": "0 bytes",
        "cut.mp4": "truncated",
        "text.mp4": "no video that this OpenCV can decode",
        "sound.mp4": "sound but no video",
        "silent.mp4": "no video",
        "none.mp4": "There is no",
        "": "is no file",
    }.items():
        with pytest.raises(VideoError, match=words) as caught:
            VideoFile(tmp_path / name)
        assert caught.value.exit_code == 2
    with pytest.raises(VideoError, match="Copy it to a disk"):
        VideoFile("s3://bucket/a.mp4")


GREYS = [8 * number + 4 for number in range(30)]
STEPS = pytest.approx([one / 25 for one in range(30)])


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize("damaged", [[0], [9], [9, 20], [19, 20, 21], list(range(4, 9))])
def test_packets_that_cannot_be_read_cost_themselves_alone(
    tmp_path: Path, damaged: list[int], reorder: bool
) -> None:
    pictures = h264.samples(GREYS, every=30, reorder=reorder)
    if damaged == [0]:  # the other pictures need a key frame
        pictures = h264.samples(GREYS, every=1)
    path = h264.write_mp4(tmp_path / "a.mp4", pictures, reorder=int(reorder))
    data = bytearray(path.read_bytes())
    for place in damaged:
        start = data.index(pictures[place].unit) - 4
        data[start : start + 4] = b"\xa5" * 4  # the size of what follows
    path.write_bytes(data)
    lost = {pictures[place].shown for place in damaged}
    with VideoFile(path) as video:
        assert video.info.frames == video.info.declared == 30
        assert list(video.times) == STEPS
        assert levels(video, video.choose()) == [-1 if one in lost else one for one in range(30)]


def test_packets_that_cannot_be_read_get_times_where_there_is_room() -> None:
    times = [one / 10 for one in range(40) if one not in {7, 8, 30}]
    times[20], times[21] = times[21], times[20]  # as read
    whole = _completed(array("d", times), array("q", [7, 7, 28]))
    assert whole.tolist() == pytest.approx([one / 10 for one in range(40)])


@pytest.mark.parametrize("count", [3, 4, 6, 40])
def test_a_stretch_that_cannot_be_decoded_costs_itself_alone(tmp_path: Path, count: int) -> None:
    frames = [np.full((48, 64, 3), 8 * (one % 30) + 4, np.uint8) for one in range(200)]
    path = clips.write(tmp_path / "a.avi", frames, 10, "MJPG")
    for place in range(50, 50 + count):
        clips.blank_frame(path, place)
    with VideoFile(path) as video:
        expected = [-1 if 50 <= one < 50 + count else one % 30 for one in range(200)]
        assert levels(video, video.choose()) == expected


@pytest.mark.parametrize("reorder", [False, True])
def test_an_avi_with_frames_out_of_order(tmp_path: Path, reorder: bool) -> None:
    pictures = h264.samples(GREYS, every=30, reorder=reorder)
    path = h264.write_avi(tmp_path / "a.avi", pictures, reorder=int(reorder))
    with VideoFile(path) as video:
        assert list(video.times) == STEPS
        assert levels(video, video.choose()) == list(range(30))
    with VideoFile(path) as video:
        assert levels(video, np.array([11, 12, 29])) == [11, 12, 29]


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize(
    ("begin", "count"),
    [(0, 30), (5, 10), (12, 12), (17, 6), (23, 7), (5.4, 9)],  # from a key frame at 0, 12, 24
)
def test_of_a_clip_cut_without_encoding_what_is_shown(
    tmp_path: Path, begin: float, count: int, reorder: bool
) -> None:
    pictures = h264.samples(GREYS, reorder=reorder)
    start = round((begin + reorder) * 512)  # frames out of order make all come one later
    path = h264.write_mp4(
        tmp_path / "a.mp4", pictures, edits=[(count * 512, start)], reorder=int(reorder)
    )
    first = math.ceil(begin)
    with VideoFile(path) as video:
        assert list(video.times) == pytest.approx([one / 25 for one in range(count)])
        assert levels(video, video.choose()) == list(range(first, first + count))
        assert video.info.declared == count
        assert video.info.duration == pytest.approx(count / 25)


def test_of_a_clip_cut_at_a_variable_frame_rate_what_is_shown(tmp_path: Path) -> None:
    durations = [512] * 10 + [2000] * 10 + [300] * 10
    pictures = h264.samples(GREYS, every=30)
    path = h264.write_mp4(tmp_path / "a.mp4", pictures, durations, [(40000, 7 * 512)])
    times = np.cumsum([0, *durations[7:-1]]) / h264.TICKS
    with VideoFile(path) as video:
        assert list(video.times) == pytest.approx(times)
        assert levels(video, video.choose()) == list(range(7, 30))


@pytest.mark.parametrize("reorder", [False, True])
def test_a_stream_without_a_container(tmp_path: Path, reorder: bool) -> None:
    pictures = h264.samples(GREYS, reorder=reorder)
    path = h264.write_raw(tmp_path / "a.h264", pictures, reorder=int(reorder))
    with VideoFile(path) as video:
        assert list(video.times) == STEPS
        assert (video.info.fps, video.info.duration) == pytest.approx((25, 1.2))
        assert levels(video, video.choose(0.4)) == list(range(10, 30))


def test_music_with_a_cover_is_no_video(tmp_path: Path) -> None:
    encoded, jpeg = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))
    assert encoded
    picture = b"\0image/jpeg\0\3\0" + jpeg.tobytes()
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    silence = (b"\xff\xfb\x90\x00" + bytes(413)) * 40  # MPEG-1 layer III, 128 kbit/s
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3\3\0\0" + size + frame + silence)
    with pytest.raises(VideoError, match="sound but no video"):
        VideoFile(path)


def test_frames_that_share_a_time_are_reached_without_beginning_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [np.full((48, 64, 3), 8 * (one % 30) + 4, np.uint8) for one in range(600)]
    path = clips.write(tmp_path / "a.mp4", frames, 10)
    clips.set_durations(path, [1536] * 300 + [0] + [1536] * 299)
    opened = []
    again = VideoFile._open
    monkeypatch.setattr(VideoFile, "_open", lambda self: (opened.append(1), again(self)))
    with VideoFile(path) as video:
        assert video.times[300] == video.times[301]
        wanted = np.arange(0, 600, 110)
        assert levels(video, wanted) == [one % 30 for one in wanted]
    assert len(opened) == 1


def test_a_rate_where_times_are_rounded_to_milliseconds(
    tmp_path: Path, numbered: list[np.ndarray]
) -> None:
    with VideoFile(clips.write(tmp_path / "a.mkv", numbered, 30, "FFV1")) as video:
        assert video.times[2] == 0.067
        for rate in (15, 10, 6):
            assert video.choose(fps=rate).tolist() == list(range(0, 30, 30 // rate))


def test_the_etag_is_that_of_the_file_as_opened(tmp_path: Path, numbered: list[np.ndarray]) -> None:
    path = clips.write(tmp_path / "a.avi", numbered, 25, "MJPG")
    with VideoFile(path) as video:
        etag = video.etag
        assert not video.changed()
        os.utime(path, (1, 1))
        assert video.changed()
        path.unlink()
        assert video.changed()
        assert video.etag == etag
