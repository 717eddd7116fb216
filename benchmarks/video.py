"""Frames per second of video analysis and of live video, by stage; identities on made scenes.

    python benchmarks/video.py --model models/package --faces 3 --seconds 20

The clip is made: 640x480, 30 frames/s, one to three drawn people who move. Analysed are every
frame (detection as params.yaml has it), then every frame with detection on every frame, then the
same file live. Identities are counted on people who walk side by side and who cross.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from fer import Recognizer
from fer.dataset.scenes import draw_scene
from fer.expressions import Expression
from fer.faces.detector import make_detector
from fer.faces.tracker import Tracker
from fer.inference.camera import Camera
from fer.inference.live import Live
from fer.inference.video import analyze_video
from fer.params import VideoParams

WIDTH, HEIGHT, FPS = 640, 480, 30
Box = tuple[float, float, float, float]


def people(count: int) -> list[tuple[np.ndarray, Box]]:
    """Drawn people, some 170 px wide, and the place of each one's face."""
    found: list[tuple[np.ndarray, Box]] = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        picture, (box,) = draw_scene([Expression(seed * 2 % 7)], rng, 190, 220)
        found.append((picture, box))
    return found


def frame_of(cast: list[tuple[np.ndarray, Box]], places: list[tuple[int, int]]) -> np.ndarray:
    """A 640x480 frame with each person's upper left corner at a place."""
    frame = np.full((HEIGHT, WIDTH, 3), (150, 140, 120), np.uint8)
    for (picture, _), (left, top) in zip(cast, places, strict=True):
        x0, x1 = max(0, left), min(WIDTH, left + picture.shape[1])
        y1 = min(HEIGHT, top + picture.shape[0])
        if x1 > x0:
            frame[top:y1, x0:x1] = picture[: y1 - top, x0 - left : x1 - left]
    return frame


def write_clip(path: Path, faces: int, seconds: float) -> None:
    """The clip that speed is measured on."""
    cast = people(faces)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for number in range(round(seconds * FPS)):
        sway = round(12 * np.sin(number / 20))
        places = [(10 + 215 * place + sway, 120 + sway * (place - 1)) for place in range(faces)]
        writer.write(frame_of(cast, places))
    writer.release()


def identities(crossing: bool, frames: int = 150) -> tuple[int, int, int]:
    """Faces present, faces found, and changes of number, on a scene with known truth."""
    cast, detector, tracker = people(2), make_detector(), Tracker()
    last: dict[int, int] = {}
    present = found = switches = 0
    for number in range(frames):
        if crossing:
            step = round(440 * abs((number % 120) / 60 - 1))
            places = [(step, 100), (440 - step, 110)]
        else:
            places = [(20 + number // 2, 100), (400 - number // 2, 120)]
        grey = np.asarray(cv2.cvtColor(frame_of(cast, places), cv2.COLOR_BGR2GRAY), np.uint8)
        seen = tracker.update(
            grey, number / FPS, detector.detect(grey) if number % 6 == 0 else None
        )
        apart = abs(places[0][0] - places[1][0]) > 120  # neither hides the other's face
        for who, ((left, top), (_, box)) in enumerate(zip(places, cast, strict=True)):
            x, y = left + (box[0] + box[2]) / 2, top + (box[1] + box[3]) / 2
            if not apart:
                continue
            present += 1
            near = [
                one
                for one in seen
                if abs((one.box.left + one.box.right) / 2 - x) < 40
                and abs((one.box.top + one.box.bottom) / 2 - y) < 40
            ]
            if near:
                found += 1
                switches += last.get(who, near[0].track) != near[0].track
                last[who] = near[0].track
    return present, found, switches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="package folder or model.onnx")
    parser.add_argument("--faces", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    recognizer = Recognizer.load(Path(arguments.model))
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, arguments.faces, arguments.seconds)
        for title, interval in (("tracked", 0.2), ("detected every frame", 0.0)):
            begun, busy = time.perf_counter(), time.process_time()
            params = VideoParams(detect_interval=interval)
            summary = analyze_video(
                clip, recognizer, Path(folder) / f"{interval}.parquet", params=params
            )
            wall, cpu = time.perf_counter() - begun, time.process_time() - busy
            total = sum(summary.stages.values())
            shares = ", ".join(f"{name} {one / total:.0%}" for name, one in summary.stages.items())
            print(
                f"{title}: {summary.frames / wall:.1f} frames/s, "
                f"{cpu / summary.frames * 1000:.1f} ms of CPU a frame, "
                f"{summary.faces / summary.frames:.2f} faces a frame; {shares}"
            )
        with Camera(str(clip)) as camera:
            report = Live(camera, recognizer).run()
        print(f"live: {report.frames_per_second} frames/s, {report.passed_over} passed over")
        for name, one in report.latency_ms.items():
            print(f"  {name:<10}" + "".join(f"{key} {value:8.1f}  " for key, value in one.items()))
    for title, crossing in (("side by side", False), ("crossing", True)):
        present, found, switches = identities(crossing)
        print(
            f"identities, {title}: {found} of {present} faces found, {switches} changes of number"
        )


if __name__ == "__main__":
    main()
