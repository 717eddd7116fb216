"""How well episodes date changes of expression, without the cost of whole videos.

    python benchmarks/dating.py --faces fer2013.zip
    python benchmarks/dating.py --variants "smoothing=0.2" "enter=0.4 leave=0.3" --json
    python benchmarks/dating.py --sequences 48 --variants classify_interval={0,0.2,0.3}

For choosing `video.classify_interval` and the parameters of `video.timeline`, and so on validation
faces: crops of FER2013 faces that change into one another within three frames, each frame moved,
scaled and noisy as a tracked face's crops are, are classified, and the episodes compared with the
true dates. Only changes that the model reads count: before and after it says the given expression
with 0.5 or more, more often than not, where it sees every frame. Whole scenes are
benchmarks/tracking.py's affair.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cv2
import numpy as np
from casting import SURE, Faces, default_source, read_faces
from numpy.typing import NDArray

from fer import Recognizer
from fer.expressions import EXPRESSIONS
from fer.faces.cuts import correlation
from fer.faces.detector import Detection
from fer.faces.finder import FoundFace
from fer.faces.quality import Quality
from fer.inference.classifier import Classifier
from fer.inference.keyframes import Keyframes, Sighting
from fer.inference.timeline import find_episodes, smooth
from fer.params import VideoParams

FPS, SECONDS = 25, 8
FADE = 3.5  # frames that a change takes
EVERY = 5  # frames between two detections, whose boxes differ
WITHIN = 3  # frames
FACE = FoundFace(Detection(0, 0, 1, 1, 0), Quality(1, 0, 0), np.zeros((48, 48), np.uint8))
"""Of a sighting: which frames are key frames does not depend on it."""


@dataclass(frozen=True)
class Sequence:
    """One face: probabilities (n, 7), frames of its changes, and what it expresses from each on."""

    probabilities: NDArray[np.float64]
    changes: list[int]
    labels: list[int]


def cast(faces: Faces, count: int, seed: int, classifier: Classifier) -> Faces:
    """Of so many faces those of whose expression the model is sure."""
    drawn = faces.shuffled(seed, count)
    scores = classifier.probabilities(drawn.pixels)
    sure = scores[np.arange(len(scores)), drawn.labels] >= SURE
    return Faces(drawn.pixels[sure], drawn.labels[sure])


def sequence(faces: Faces, rng: np.random.Generator, classifier: Classifier) -> Sequence:
    """A face that changes every 1.2 to 2 s into one that is like it and expresses another thing."""
    small = [cv2.resize(one, (24, 24), interpolation=cv2.INTER_AREA) for one in faces.pixels]
    shown, changes = [int(rng.integers(len(faces.labels)))], []
    moment = rng.uniform(1.2, 1.6)
    while moment < SECONDS - 1:
        now = shown[-1]
        others = [n for n, label in enumerate(faces.labels) if label != faces.labels[now]]
        alike = [correlation(small[n], small[now]) + 0.2 * rng.random() for n in others]
        shown.append(others[int(np.argmax(alike))])
        changes.append(round(moment * FPS))
        moment += rng.uniform(1.2, 2.0)
    crops = []
    zoom, x, y = 1.0, 0.0, 0.0
    for number in range(SECONDS * FPS):
        pixels = faces.pixels[shown[0]].astype(np.float32)
        for other, change in zip(shown[1:], changes, strict=True):
            weight = min(1.0, max(0.0, (number - change + 2) / FADE))
            pixels += weight * (faces.pixels[other].astype(np.float32) - pixels)
        if number % EVERY == 0:  # half the old box, half the new one
            zoom = (zoom + rng.normal(1.0, 0.06)) / 2
            x, y = (x + rng.normal(0, 1.5)) / 2, (y + rng.normal(0, 1.5)) / 2
        near = rng.normal(0, 0.2, 2)
        rest = 24 - 24 / zoom
        move = np.array([[1 / zoom, 0, rest + x + near[0]], [0, 1 / zoom, rest + y + near[1]]])
        moved = cv2.warpAffine(pixels, move, (48, 48), borderMode=cv2.BORDER_REPLICATE)
        moved += rng.normal(0, 3, moved.shape)
        crops.append(np.clip(np.rint(moved), 0, 255).astype(np.uint8))
    scores = classifier.probabilities(crops).astype(np.float64)
    return Sequence(scores, changes, [int(faces.labels[n]) for n in shown])


def by_key_frames(sequence: Sequence, interval: float) -> NDArray[np.float64]:
    """The probabilities where the classifier sees key frames alone (n, 7)."""
    keyframes = Keyframes(interval)
    sightings = [Sighting(0, number / FPS, False, FACE) for number in range(SECONDS * FPS)]
    chosen = [key for one in sightings for key in keyframes.update([one])]
    for one in chosen + keyframes.close():
        one.scores = sequence.probabilities[round(one.time * FPS)].astype(np.float32)
    return np.stack([one.probabilities for one in sightings]).astype(np.float64)


def judged(sequences: list[Sequence], params: VideoParams) -> dict[str, Any]:
    """Changes made, readable and dated, errors in frames, and episodes in all."""
    made, readable, episodes = 0, 0, 0
    errors: list[float] = []
    timeline = params.timeline
    for one in sequences:
        times = np.arange(len(one.probabilities)) / FPS
        scores = by_key_frames(one, params.classify_interval)
        found = list(find_episodes(times, smooth(times, scores, timeline.smoothing), timeline))
        episodes += len(found)
        said = one.probabilities.argmax(axis=1)
        sure = one.probabilities.max(axis=1) >= 0.5
        parts = itertools.pairwise((0, *one.changes, len(times)))
        read = [
            2 * int(((said[a:b] == label) & sure[a:b]).sum()) > b - a
            for (a, b), label in zip(parts, one.labels, strict=True)
        ]
        for place, change in enumerate(one.changes, start=1):
            made += 1
            if not (read[place - 1] and read[place]):
                continue
            readable += 1
            wanted = EXPRESSIONS[one.labels[place]]
            starts = [abs(it.start * FPS - change) for it in found if it.expression == wanted]
            if starts and min(starts) <= FPS:
                errors.append(round(min(starts), 2))
    return {
        "changes": made,
        "readable": readable,
        "dated": len(errors),
        "within_3_frames": sum(error <= WITHIN for error in errors),
        "median_error": float(np.median(errors)) if errors else None,
        "worst_error": max(errors, default=None),
        "episodes": episodes,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="package folder or model.onnx; default: the shipped model")
    parser.add_argument("--faces", type=Path, help="prepared table or archive of FER2013")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--sequences", type=int, default=16, help=f"of {SECONDS} s each")
    parser.add_argument("--count", type=int, default=260, help="faces to choose from")
    parser.add_argument("--variants", nargs="*", default=[], metavar="'NAME=VALUE ...'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args()
    classifier = Recognizer.load(Path(arguments.model) if arguments.model else None).classifier
    faces = read_faces(arguments.faces or default_source(), arguments.split)
    chosen = cast(faces, arguments.count, arguments.seed, classifier)
    rng = np.random.default_rng(arguments.seed)
    sequences = [sequence(chosen, rng, classifier) for _ in range(arguments.sequences)]
    results = {"as it is": judged(sequences, VideoParams())}
    for text in arguments.variants:
        values = dict(part.split("=", 1) for part in text.split())
        own = {name: values.pop(name) for name in list(values) if name in VideoParams.model_fields}
        results[text] = judged(sequences, VideoParams.model_validate(own | {"timeline": values}))
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "variants": results}, indent=2))
        return
    print(f"{'':<26}{'changes':>9}{'readable':>10}{'dated':>7}{'within 3':>10}{'median':>8}"
          f"{'worst':>7}{'episodes':>10}")  # fmt: skip
    for name, one in results.items():
        print(
            f"{name:<26}{one['changes']:>9}{one['readable']:>10}{one['dated']:>7}"
            f"{one['within_3_frames']:>10}{one['median_error'] or 0:>8.1f}"
            f"{one['worst_error'] or 0:>7.1f}{one['episodes']:>10}"
        )


if __name__ == "__main__":
    main()
