"""Identities, empty frames and the dates of expressions on scenes whose truth is known.

    python benchmarks/tracking.py --scenes 6 --seconds 12
    python benchmarks/tracking.py --faces fer2013.zip --kinds crossing meeting --json
    python benchmarks/tracking.py --split validation --kinds changing --timeline smoothing=0.2

Scenes are made of FER2013 test faces, which are read where the data lies and are in no file of
this project: 640x480, 25 frames/s, one to three persons on paths that are drawn by the seed.
Each is encoded, analysed by `analyze_video` as any file is, and compared with its truth. A face
takes part if HOG finds it in a still with a score of 0.3 or more and the model is sure of what it
shows there: what is measured is tracking and dating, not detection or recognition. The same seed
gives the same scenes. Choose parameters on validation, report on test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import moving
import scoring
from casting import choose_looks, default_source, read_faces

from fer import Recognizer
from fer.inference.video import analyze_video
from fer.inference.video_parts import read_video
from fer.params import TimelineParams, VideoParams

NOTES = """\
changes: dated by an episode / readable / made; errors in frames, of those dated
targets: no frame missing; simple: 0 switches; crossing: at most 2 % of frames under another
number; changes dated within 3 frames"""


def measured(
    scene: moving.Scene, recognizer: Recognizer, folder: Path, params: VideoParams
) -> scoring.Score:
    """One scene, analysed and compared."""
    clip = scene.write(folder / f"{scene.kind}-{scene.seed}.mp4")
    summary = analyze_video(clip, recognizer, clip.with_suffix(".parquet"), params=params)
    rows = read_video(Path(summary.results)).to_pylist()
    clip.unlink()
    return scoring.score(scene, rows, summary.episodes)


def document_of(score: scoring.Score) -> dict[str, Any]:
    """A score and the shares that follow from it."""
    errors = score.errors
    return vars(score) | {
        "found_share": round(score.found / score.present, 4) if score.present else None,
        "wrong_share": round(score.wrong / score.found, 4) if score.found else None,
        "null_share": round(score.null / score.empty, 4) if score.empty else None,
        "dated": len(errors),
        "median_error": statistics.median(errors) if errors else None,
        "worst_error": max(errors) if errors else None,
    }


def table(scores: dict[str, dict[str, Any]]) -> str:
    """One line per kind."""
    head = (
        f"{'scenes':<10}{'frames':>7}{'missing':>9}{'found':>8}{'switches':>10}{'wrong':>8}"
        f"{'stray':>7}{'empty null':>13}{'changes':>12}{'median':>8}{'worst':>7}"
    )
    lines = [head]
    for kind, one in scores.items():
        share = f"{one['found_share']:.1%}" if one["present"] else "-"
        wrong = f"{one['wrong_share']:.1%}" if one["found"] else "-"
        dates = f"{one['dated']}/{one['readable']}/{one['changes']}" if one["changes"] else "-"
        median, worst = (
            f"{one[name]:.1f}" if one[name] is not None else "-"
            for name in ("median_error", "worst_error")
        )
        lines.append(
            f"{kind:<10}{one['frames']:>7}{one['missing']:>9}{share:>8}{one['switches']:>10}"
            f"{wrong:>8}{one['stray']:>7}{one['null']:>6} of {one['empty']:<3}{dates:>12}"
            f"{median:>8}{worst:>7}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="package folder or model.onnx; default: the shipped model")
    parser.add_argument("--faces", type=Path, help="prepared table or archive of FER2013")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--kinds", nargs="+", default=list(moving.KINDS), choices=moving.KINDS)
    parser.add_argument("--scenes", type=int, default=6, help="of each kind")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detect-interval", type=float, help="s; default: that of params.yaml")
    parser.add_argument("--small-interval", type=float, help="s; likewise")
    parser.add_argument(
        "--timeline", nargs="+", default=[], metavar="NAME=VALUE", help="of video.timeline"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args()
    timeline = dict(one.split("=", 1) for one in arguments.timeline)
    params = VideoParams(timeline=TimelineParams.model_validate(timeline))
    if arguments.detect_interval is not None:
        params = params.model_copy(update={"detect_interval": arguments.detect_interval})
    if arguments.small_interval is not None:
        params = params.model_copy(update={"small_interval": arguments.small_interval})
    recognizer = Recognizer.load(Path(arguments.model) if arguments.model else None)
    faces = read_faces(arguments.faces or default_source(), arguments.split)
    begun = time.monotonic()
    # As many faces as the scene with the most changes has expressions to choose from, and more.
    looks = choose_looks(faces, recognizer.classifier, recognizer.detector, 48, arguments.seed)
    scores: dict[str, scoring.Score] = {}
    with tempfile.TemporaryDirectory(prefix="fer-scenes-") as name:
        for kind in arguments.kinds:
            total = scoring.Score()
            for number in range(arguments.scenes):
                seed = arguments.seed * 1000 + number
                own = looks[number * 7 % len(looks) :] + looks[: number * 7 % len(looks)]
                scene = moving.make_scene(kind, own, seed, arguments.seconds, 1 + number % 3)
                one = measured(scene, recognizer, Path(name), params)
                total += one
                if not arguments.json and (one.switches or one.wrong or one.missing):
                    print(f"{kind} {seed}: {one.switches} switches, {one.wrong} frames wrong")
            scores[kind] = total
    documents = {kind: document_of(one) for kind, one in scores.items()}
    if arguments.json:
        settings = {"scenes": arguments.scenes, "seconds": arguments.seconds}
        print(json.dumps(settings | {"seed": arguments.seed, "kinds": documents}, indent=2))
        return
    print(
        f"{recognizer.model}, {recognizer.detector.name}, {os.cpu_count()} cores, "
        f"{time.monotonic() - begun:.0f} s\n{table(documents)}\n{NOTES}"
    )


if __name__ == "__main__":
    main()
