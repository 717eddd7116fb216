"""Make the picture of `fer report` that docs/video.md shows: docs/images/report.png.

    python docs/report.py

A drawn person changes expression, is away for a while and comes back; the clip is analysed with
the shipped model, and the timeline of the report is taken.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import clips
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer import Expression, Recognizer
from fer.inference.video import analyze_video
from fer.params import TimelineParams
from fer.reports.analysed import find_results, read_analysed
from fer.reports.reported import people_of
from fer.reports.study import Cast, read_segments
from fer.reports.timeline_plot import plot_timeline

TARGET = Path(__file__).parent / "images" / "report.png"
FPS = 20
SEED = 0  # of the drawn person
SHOWN = (  # expression and seconds; None: nobody is there
    (Expression.NEUTRAL, 4.0),
    (Expression.HAPPY, 5.0),
    (Expression.NEUTRAL, 2.0),
    (Expression.SURPRISE, 3.0),
    (None, 1.2),
    (Expression.SAD, 4.0),
    (Expression.ANGRY, 3.0),
    (Expression.HAPPY, 4.0),
)
SEGMENTS = "name,start,end\nwelcome,0,4\nadvert,4,14\nquestions,15.2,26.2\n"


def frames() -> list[NDArray[np.uint8]]:
    """The clip: somebody who sways a little, 440x240."""
    drawn = []
    for expression, seconds in SHOWN:
        for _ in range(round(seconds * FPS)):
            frame = clips.wall(440, 240)
            if expression is not None:
                sway = round(15 * np.sin(len(drawn) / 15))
                clips.paste(frame, clips.person(SEED, expression), 110 + sway, 5)
            drawn.append(frame)
    return drawn


def main() -> None:
    """Draw, analyse, take the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = clips.write(folder / "playtest.mp4", frames(), FPS)
        analyze_video(clip, Recognizer.load(), folder / "playtest.parquet")
        (folder / "segments.csv").write_text(SEGMENTS)
        found = find_results([folder / "playtest.parquet"])
        segments = read_segments(folder / "segments.csv", found)["playtest"]
        analysed = read_analysed(found.files[0], TimelineParams())
        people = people_of(analysed, Cast(), TimelineParams())
        longest = max(people, key=lambda one: len(one.seen.starts))
        plot_timeline(longest, analysed.frames.span, segments, folder / "plot.png")
        # 128 colours: a third of the size.
        Image.open(folder / "plot.png").convert("RGB").quantize(128).save(TARGET, optimize=True)
    print(f"{len(people)} tracks, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
