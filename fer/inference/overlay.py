"""Boxes, numbers, expressions and bars drawn into frames, for an overlay video or a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.expressions import Expression
from fer.faces.detector import Detection
from fer.inference.timeline import Timeline, timelines
from fer.inference.video_file import VideoFile
from fer.inference.video_writer import VideoWriter, check_name, check_source

if TYPE_CHECKING:
    from fer.inference.video_parts import VideoResults
    from fer.params import TimelineParams

Picture = NDArray[np.uint8]

_WHITE = (255, 255, 255)
_SHADE = (24, 24, 24)
_ROW = 15  # px a bar, in a picture 480 px high
_BAR = 70  # px, the longest bar
_LEAST_FPS = 1.0  # of an overlay: slower videos are shown in repeated frames


@dataclass(frozen=True)
class Label:
    """What is drawn at one face: its number, box, and probabilities (7,)."""

    track: int
    box: Detection
    probabilities: NDArray[Any]


def draw(picture: Picture, labels: Sequence[Label], status: str = "") -> None:
    """Draw faces and a status line into a BGR picture, uint8 (h, w, 3), in place."""
    import cv2

    zoom = max(0.5, picture.shape[0] / 480)
    for label in labels:
        best = Expression(int(np.argmax(label.probabilities)))
        colour, box = _bgr(best), label.box
        corners = (round(box.left), round(box.top)), (round(box.right), round(box.bottom))
        cv2.rectangle(picture, *corners, colour, max(1, round(2 * zoom)), cv2.LINE_AA)
        title = f"{label.track}  {best.label} {label.probabilities[best]:.0%}"
        _text(picture, title, (corners[0][0], corners[0][1] - round(6 * zoom)), zoom, colour)
        _bars(picture, label, zoom)
    if status:
        _text(picture, status, (round(8 * zoom), round(20 * zoom)), zoom, _WHITE)


def render_overlay(
    video: str | Path,
    results: VideoResults,
    target: Path,
    params: TimelineParams,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the analysed frames with their faces drawn in, in the time they take in the video.

    The video is decoded a second time: the bars show smoothed probabilities, which are known
    only once all frames are.

    Args:
        video: the file.
        results: its finished results.
        target: the .mp4 to write, whole or not at all.
        params: the filter.
        progress: called after every frame.

    Raises:
        UsageError: the target is no .mp4, or the video itself.
        StoreError: it cannot be written.
    """
    check_overlay(video, target)
    people = {one.track: one for one in timelines(results.timeline_tables(), params)}
    with VideoFile(video) as file:
        indices = np.fromiter((frame for frame, _ in _by_frame(results)), np.int64)
        times = np.frombuffer(file.times, np.float64)[indices]
        fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else file.info.fps
        size = (file.info.width, file.info.height)
        with VideoWriter(target, max(fps, _LEAST_FPS), size) as writer:
            last = np.zeros((size[1], size[0], 3), np.uint8)
            frames = zip(file.frames(indices), _by_frame(results), strict=True)
            for done, (frame, row) in enumerate(frames, start=1):
                if frame.pixels is not None:
                    last = frame.pixels
                    draw(last, _labels(row, people), f"{frame.time:.2f} s")
                # At a variable frame rate a frame is shown as often as its time asks for.
                until = times[done] if done < len(times) else times[-1] + 1 / fps
                for _ in range(max(0, round((until - times[0]) * writer.fps) - writer.written)):
                    writer.write(last)
                if progress:
                    progress(done, len(indices))
            writer.finish()


def check_overlay(video: str | Path, target: Path) -> None:
    """Say before the hours of an analysis what would be said after them.

    Raises:
        UsageError: the target is no .mp4, or the video itself.
    """
    check_name(target, "overlay")
    check_source(target, video)


_EDGES = ("box_left", "box_top", "box_right", "box_bottom")

Row = tuple[int, list[tuple[int, Detection]]]


def _by_frame(results: VideoResults) -> Iterator[Row]:
    """Each analysed frame: index, and number and box of each face."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(results.target) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["frame", "track", *_EDGES])
            current: Row | None = None
            for row in table.to_pylist():
                if current is None or row["frame"] != current[0]:
                    if current:
                        yield current
                    current = (row["frame"], [])
                if row["track"] is not None:
                    current[1].append((row["track"], _box(row)))
            if current:
                yield current


def _box(row: dict[str, Any]) -> Detection:
    left, top, right, bottom = (row[edge] for edge in _EDGES)
    return Detection(left, top, right, bottom, 0.0)


def _labels(row: Row, people: dict[int, Timeline]) -> list[Label]:
    frame, faces = row
    labels = []
    for track, box in faces:
        person = people[track]
        place = int(np.searchsorted(person.frames, frame))
        labels.append(Label(track, box, person.probabilities[place]))
    return labels


def _bars(picture: Picture, label: Label, zoom: float) -> None:
    """Seven bars beside the box: to its right, or to its left where there is no room."""
    import cv2

    row, longest = round(_ROW * zoom), round(_BAR * zoom)
    width = round(64 * zoom) + longest
    box, (rows, columns) = label.box, picture.shape[:2]
    left = round(box.right + 6 * zoom)
    if left + width > columns:
        left = max(0, min(columns - width, round(box.left - 6 * zoom) - width))
    top = max(0, min(rows - 7 * row, round(box.top)))
    area = picture[top : top + 7 * row, left : left + width]
    area[:] = area // 3  # dark behind the bars, whatever is there
    for place, expression in enumerate(Expression):
        y = top + place * row
        start = left + round(60 * zoom)
        end = start + round(longest * float(label.probabilities[expression]))
        cv2.rectangle(
            picture, (start, y + 3), (max(start, end), y + row - 3), _bgr(expression), cv2.FILLED
        )
        _text(picture, expression.label, (left + 3, y + row - 4), zoom * 0.75, _WHITE, False)


def _text(
    picture: Picture,
    text: str,
    place: tuple[int, int],
    zoom: float,
    colour: tuple[int, int, int],
    outlined: bool = True,
) -> None:
    import cv2

    place = (max(0, place[0]), max(round(12 * zoom), place[1]))
    size, thick = 0.5 * zoom, max(1, round(zoom))
    face = cv2.FONT_HERSHEY_SIMPLEX
    if outlined:
        cv2.putText(picture, text, place, face, size, _SHADE, thick + 2, cv2.LINE_AA)
    cv2.putText(picture, text, place, face, size, colour, thick, cv2.LINE_AA)


def _bgr(expression: Expression) -> tuple[int, int, int]:
    value = int(expression.colour[1:], 16)
    return value & 255, value >> 8 & 255, value >> 16
