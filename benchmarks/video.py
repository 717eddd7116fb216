"""Frames per second of `fer video` and latency of `fer live`, stage by stage.

    python benchmarks/video.py --faces 3 --seconds 20
    python benchmarks/video.py --clip clip.mp4 --peer /path/to/peer/bin/python --json

The clip is made unless one is named: 640x480, 30 frames/s, one to three drawn people who move.
It is analysed as params.yaml has it, with optical flow between detections and probabilities
interpolated between key frames; with every face classified; and with detection and classification
on every frame; the first and the last also scaled down so that the smallest face found is 50 px.
Then the same file is played live. `--peer` is the Python of an environment that holds the package
`fer` of PyPI (`pip install fer 'opencv-contrib-python<5' 'setuptools<81'`). Its own
`Video.analyze`, whose smallest face is 50 px, then takes its turns on the same file: with nothing
saved or drawn, and as it comes, when it saves every frame. Turns are taken in rounds, so that
whatever else the machine does meets all alike, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import clips
import cv2
import numpy as np

from fer import Recognizer
from fer.expressions import Expression
from fer.inference.camera import Camera
from fer.inference.live import Live
from fer.inference.video import analyze_video
from fer.params import VideoParams

WIDTH, HEIGHT, FPS = 640, 480, 30
TRACKED, CLASSIFIED, EVERY = "tracked", "each face classified", "detected every frame"
FROM_50, ALIKE = "tracked, from 50 px", "every frame, from 50 px"
PEER, PEER_SAVING = "package fer", "package fer, saving"
PEER_SMALLEST = 50.0  # px: `min_face_size` of the package
WANTED_FPS, WANTED_LATENCY, WANTED_TIMES = 30.0, 60.0, 5.0
Turn = dict[str, Any]


def write_clip(path: Path, faces: int, seconds: float) -> None:
    """One to three drawn people who sway in front of a wall."""
    cast = [clips.person(seed, Expression(seed * 2 % 7)) for seed in range(faces)]
    wall = clips.wall(WIDTH, HEIGHT)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for number in range(round(seconds * FPS)):
        frame = wall.copy()
        sway = round(12 * np.sin(number / 20))
        for place, who in enumerate(cast):
            clips.paste(frame, who, 10 + 210 * place + sway, 120 + sway * (place - 1))
        writer.write(frame)
    writer.release()


def analysed(clip: Path, recognizer: Recognizer, params: VideoParams) -> Turn:
    """One analysis by `analyze_video`."""
    with tempfile.TemporaryDirectory() as folder:
        begun, busy = time.perf_counter(), time.process_time()
        summary = analyze_video(clip, recognizer, Path(folder) / "clip.parquet", params=params)
        wall, cpu = time.perf_counter() - begun, time.process_time() - busy
    total = sum(summary.stages.values())
    return {
        "frames_per_second": round(summary.frames / wall, 2),
        "cpu_ms": round(1000 * cpu / summary.frames, 2),
        "faces": round(summary.faces / summary.frames, 3),
        "shares": {name: round(one / total, 3) for name, one in summary.stages.items()},
    }


def side_from_50(clip: Path, recognizer: Recognizer) -> int:
    """The `max_side` at which the smallest face found is as large as the package looks for."""
    capture = cv2.VideoCapture(str(clip))
    side = max(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    capture.release()
    scale = min(1.0, recognizer.detector.smallest_face / PEER_SMALLEST)
    return round(side * scale)


def by_peer(clip: Path, python: Path, *, saving: bool) -> Turn:
    """One analysis by the package `fer`, in a process of its own."""
    script = Path(__file__).with_name("peer_video.py")
    # Nothing that leads to this project's package of the same name.
    environment = {name: one for name, one in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, script, clip.resolve(), "saving" if saving else "bare"],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f"{python} cannot analyse the clip with the package fer:\n{done.stderr}")
    answer: Turn = json.loads(done.stdout.splitlines()[-1])
    return answer


def median_of(turns: list[Turn]) -> Turn:
    """Of several turns the one with the median frame rate, and all rates."""
    rates = [one["frames_per_second"] for one in turns]
    middle = statistics.median_low(rates)
    return next(one for one in turns if one["frames_per_second"] == middle) | {"rates": rates}


def played(clip: Path, recognizer: Recognizer) -> dict[str, Any]:
    """The clip, live; the report of the session."""
    with Camera(str(clip)) as camera:
        return Live(camera, recognizer).run().as_dict()


def text_of(document: dict[str, Any]) -> str:
    """The measurements, and beside them what is wanted."""
    lines = [f"{document['model']}, {document['cores']} cores, {document['rounds']} rounds"]
    for name, one in document["analysis"].items():
        shares = ", ".join(f"{stage} {part:.0%}" for stage, part in one.get("shares", {}).items())
        lines.append(
            f"{name:<24}{one['frames_per_second']:>8.1f} frames/s{one['cpu_ms']:>8.1f} ms of CPU "
            f"a frame{one['faces']:>6.2f} faces a frame  {shares}"
        )
    lines.append(f"wanted: {TRACKED} at least {WANTED_FPS:.0f} frames/s")
    for name, times in document["times_peer"].items():
        wanted = f"at least {WANTED_TIMES:.0f}" if name == TRACKED else "more than 1"
        lines.append(f"{name}: {times:.1f} times the package's frame rate; wanted: {wanted}")
    live = document["live"]
    lines.append(f"live: {live['frames_per_second']} frames/s, {live['passed_over']} passed over")
    for name, one in live["latency_ms"].items():
        lines.append(
            f"  {name:<10}" + "".join(f"{key} {value:8.1f}  " for key, value in one.items())
        )
    lines.append(f"wanted: p95 of latency under {WANTED_LATENCY:.0f} ms")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="package folder or model.onnx; default: the shipped model")
    parser.add_argument("--clip", type=Path, help="a video file; default: one that is made")
    parser.add_argument("--faces", type=int, default=3, choices=(1, 2, 3), help="of a made clip")
    parser.add_argument("--seconds", type=float, default=20, help="of a made clip")
    parser.add_argument("--peer", type=Path, help="Python that has the package fer of PyPI")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: FER_THREADS, or all cores")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args()
    recognizer = Recognizer.load(
        Path(arguments.model) if arguments.model else None, threads=arguments.threads
    )
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip or Path(folder) / "clip.mp4"
        if arguments.clip is None:
            write_clip(clip, arguments.faces, arguments.seconds)
        side = {"max_side": side_from_50(clip, recognizer)}
        each = {"classify_interval": 0.0}
        every = {"detect_interval": 0.0, "small_interval": 0.0} | each
        changes = {TRACKED: {}, CLASSIFIED: each, EVERY: every, FROM_50: side, ALIKE: every | side}
        ways: dict[str, Callable[[], Turn]] = {
            name: partial(analysed, clip, recognizer, VideoParams.model_validate(values))
            for name, values in changes.items()
        }
        if arguments.peer:
            ways[PEER] = lambda: by_peer(clip, arguments.peer, saving=False)
            ways[PEER_SAVING] = lambda: by_peer(clip, arguments.peer, saving=True)
        turns: dict[str, list[Turn]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, turn in ways.items():
                turns[name].append(turn())
        analysis = {name: median_of(listed) for name, listed in turns.items()}
        live = played(clip, recognizer)
    document: dict[str, Any] = {
        "model": str(recognizer.model),
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
        "analysis": analysis,
        "times_peer": {},
        "live": live,
    }
    if PEER in analysis:
        theirs = analysis[PEER]["frames_per_second"]
        for name in changes:
            times = analysis[name]["frames_per_second"] / theirs
            document["times_peer"][name] = round(times, 2)
    print(json.dumps(document, indent=2) if arguments.json else text_of(document))


if __name__ == "__main__":
    main()
