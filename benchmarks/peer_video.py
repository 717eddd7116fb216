"""The package `fer` of PyPI on one video, by its `Video.analyze`: a part of benchmarks/video.py.

Runs in an environment of its own, since that package has this project's name, and prints a JSON
document. `bare` times the analysis alone: nothing is drawn, saved or zipped; `saving` is what it
does when nothing else is said. The key that it waits a millisecond for after each frame, which
fails without a window, is not waited for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import cv2
from fer.classes import Video
from fer.fer import FER


def main() -> None:
    """Analyse the file that the command line names, `bare` or `saving`."""
    logging.disable(logging.CRITICAL)
    cv2.waitKey = lambda _=0: -1
    cv2.destroyAllWindows = lambda: None
    path, detector = Path(sys.argv[1]).resolve(), FER()
    names = ("save_frames", "save_video", "annotate_frames", "zip_images")
    options = dict.fromkeys(names, False) if sys.argv[2] == "bare" else {}
    capture = cv2.VideoCapture(str(path))
    detector.detect_emotions(capture.read()[1])  # what is made at the first call is not timed
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where its CSV goes
        video = Video(str(path), outdir=folder)
        begun, busy = time.perf_counter(), time.process_time()
        rows = video.analyze(detector, **options)
        wall, cpu = time.perf_counter() - begun, time.process_time() - busy
        frames = video.frameCount
        # Frames without a face are in no row of its.
        faces = sum(name.startswith("box") for row in rows for name in row)
        os.chdir("/")
    document = {
        "version": version("fer"),
        "frames_per_second": round(frames / wall, 2),
        "cpu_ms": round(1000 * cpu / frames, 2),
        "faces": round(faces / frames, 3),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
