"""Memory and time per frame of `fer video` over an hour of video.

    python benchmarks/memory.py --hours 1 --clips one.mp4 two.mp4
    python benchmarks/memory.py --hours 0.05                     # drawn people; three minutes
    python benchmarks/memory.py --hours 1 --end                  # the end of an hour, in seconds

The video is made by cutting pieces of 2 to 20 s out of the clips and joining them until it is long
enough: 640x480, 30 frames/s, a scene cut at each joint. While it is analysed, resident memory and
the frames done are noted every 10 s. Printed are a line a minute, how much memory grew after the
first minute of video (the end, where episodes are made, counts too), and the time per frame in the
first and the last quarter. `--end` leaves the analysis out: results of that length, with three
people in every frame, are written as an analysis leaves them, and printed is by how much the peak
of memory grows while rows are counted and episodes are made of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import clips
import cv2
import numpy as np
from numpy.typing import NDArray

from fer import Recognizer
from fer.inference.video import PART_FRAMES, analyze_video
from fer.params import TimelineParams

WIDTH, HEIGHT, FPS = 640, 480, 30
ALLOWED = 50.0  # MB
EVERY = 10.0  # s between two looks


@dataclass(frozen=True)
class Look:
    """Seconds since the start, frames done, resident MB."""

    seconds: float
    frames: int
    megabytes: float


def drawn(folder: Path) -> list[Path]:
    """Three clips of one to three drawn people who sway, 20 s each."""
    found = []
    for count in (1, 2, 3):
        cast, wall = [clips.person(seed) for seed in range(count)], clips.wall(WIDTH, HEIGHT, count)
        frames = []
        for number in range(20 * FPS):
            frame, sway = wall.copy(), round(12 * np.sin(number / 20))
            for place, who in enumerate(cast):
                clips.paste(frame, who, 10 + 210 * place + sway, 120)
            frames.append(frame)
        found.append(clips.write(folder / f"{count}.mp4", frames, FPS))
    return found


def join(sources: list[Path], target: Path, seconds: float, seed: int) -> None:
    """Cut and join until the video is long enough."""
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    left = round(seconds * FPS)
    while left > 0:
        capture = cv2.VideoCapture(str(sources[rng.integers(len(sources))]))
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        length = min(left, round(rng.uniform(2, 20) * FPS), total)
        first = int(rng.integers(total - length + 1))
        for number in range(first + length):
            there = capture.grab()
            if not there or number < first:
                continue
            _, picture = capture.retrieve()
            writer.write(cv2.resize(picture, (WIDTH, HEIGHT)))
            left -= 1
        capture.release()
    writer.release()


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def watched(clip: Path, recognizer: Recognizer, target: Path) -> list[Look]:
    """The analysis, and what was seen of it."""
    begun, looks, done = time.monotonic(), [], 0
    ended = threading.Event()

    def progress(frames: int, _: int) -> None:
        nonlocal done
        done = frames

    def watch() -> None:
        while not ended.wait(EVERY):
            looks.append(Look(round(time.monotonic() - begun, 1), done, round(resident(), 1)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        analyze_video(clip, recognizer, target, progress=progress)
    finally:
        ended.set()
        watcher.join()
    looks.append(Look(round(time.monotonic() - begun, 1), done, round(resident(), 1)))
    return looks


def pace(looks: list[Look]) -> float:
    """Milliseconds per frame from the first of these looks to the last."""
    frames = looks[-1].frames - looks[0].frames
    return 1000 * (looks[-1].seconds - looks[0].seconds) / max(1, frames)


def elsewhere(make: Callable[..., None], *task: object) -> None:
    """Make a file in another process, whose memory is not this one's."""
    maker = multiprocessing.get_context("spawn").Process(target=make, args=task)
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("What is to be analysed could not be made: see above.")


def written(target: Path, hours: float, seed: int) -> None:
    """Results of three people in every frame, who change expression every half a minute."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fer.expressions import EXPRESSIONS
    from fer.inference.results import results_schema

    # Without what no row may lack and no timeline reads.
    names = ["frame", "timestamp", "face", "track", "detection_score", "quality_marks"]
    names += [f"p_{name}" for name in EXPRESSIONS]
    schema = pa.schema([results_schema().field(name) for name in names])
    rng, people = np.random.default_rng(seed), 3
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for part in range(round(hours * 3600 * FPS / PART_FRAMES)):
            frames = np.repeat(np.arange(part * PART_FRAMES, (part + 1) * PART_FRAMES), people)
            scores = rng.uniform(0.03, 0.06, (len(frames), len(EXPRESSIONS))).astype(np.float32)
            scores[:, part % len(EXPRESSIONS)] += 0.6
            faces = np.tile(np.arange(people), PART_FRAMES)
            columns: dict[str, NDArray[Any]] = {"frame": frames, "timestamp": frames / FPS}
            columns |= {"face": faces, "track": faces}
            columns |= {f"p_{name}": scores[:, one] for one, name in enumerate(EXPRESSIONS)}
            arrays = [
                pa.array(columns[field.name]).cast(field.type)
                if field.name in columns
                else pa.nulls(len(frames), field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def end_growth(target: Path) -> tuple[float, int, int]:
    """MB by which the peak of memory grows at the end; rows, and episodes made of them."""
    import pyarrow.parquet as pq

    from fer.inference.timeline import episodes_of
    from fer.inference.video_parts import VideoResults

    results = VideoResults(target, {})
    pq.read_table(target, columns=["frame"]).slice(0, 1)  # what an analysis has loaded by then
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    counts = results.counts()
    episodes = episodes_of(results.timeline_tables(), TimelineParams())
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6 - before, counts.faces, len(episodes)


def print_end(hours: float, seed: int) -> None:
    """`--end`: measure and print."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "long.parquet"
        elsewhere(written, target, hours, seed)
        growth, rows, episodes = end_growth(target)
    print(f"{rows} rows, {episodes} episodes: {growth:.1f} MB; wanted: under {ALLOWED:.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="package folder or model.onnx; default: the shipped model")
    parser.add_argument("--clips", type=Path, nargs="+", help="default: drawn people")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("--end", action="store_true", help="only the end, of made results")
    arguments = parser.parse_args()
    if arguments.end:
        print_end(arguments.hours, arguments.seed)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "long.mp4"
        sources = arguments.clips or drawn(folder)
        elsewhere(join, sources, clip, arguments.hours * 3600, arguments.seed)
        recognizer = Recognizer.load(Path(arguments.model) if arguments.model else None)
        looks = watched(clip, recognizer, folder / "long.parquet")
    settled = [one for one in looks if one.frames >= 60 * FPS] or looks[-1:]
    growth = max(one.megabytes for one in settled) - settled[0].megabytes
    # The last look is after the end, where no more frames are done.
    quarter = max(2, len(looks[:-1]) // 4)
    paces = [pace(looks[:-1][:quarter]), pace(looks[:-1][-quarter:])] if looks[2:] else []
    if arguments.json:
        document = {
            "hours": arguments.hours,
            "seed": arguments.seed,
            "cores": os.cpu_count(),
            "growth_mb": round(growth, 1),
            "ms_per_frame_first_and_last_quarter": [round(one, 2) for one in paces],
            "looks": [asdict(one) for one in looks],
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{recognizer.model}, {os.cpu_count()} cores\n{'s':>8}{'frames':>9}{'MB':>8}")
    for number, one in enumerate(looks):
        if number % round(60 / EVERY) == round(60 / EVERY) - 1 or one is looks[-1]:
            print(f"{one.seconds:>8.0f}{one.frames:>9}{one.megabytes:>8.0f}")
    print(f"growth after the first minute of video: {growth:.1f} MB; wanted: under {ALLOWED:.0f}")
    if paces:
        print(f"per frame: {paces[0]:.1f} ms in the first quarter, {paces[1]:.1f} in the last")


if __name__ == "__main__":
    main()
