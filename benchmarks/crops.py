"""What is lost between FER2013's own crop and the detector's crop of the same face.

    python benchmarks/crops.py                              # PrivateTest, as params.yaml crops
    python benchmarks/crops.py --split validation --margins -0.1 0 0.1 0.2
    python benchmarks/crops.py --count 600 --detector dlib-mmod --json

Each face is pasted into a textured picture, looked for there, cut out as a photograph's faces are
and classified; beside that stands the answer on its own 48x48 pixels. Compared are the faces that
were found, by both answers on the same faces; the interval is a bootstrap of the difference.
Choose a margin on validation, report on test. FER2013 is read where the data lies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from casting import Faces, default_source, find_in_stills, read_faces
from numpy.typing import NDArray

from fer import FacesParams, Recognizer
from fer.faces.finder import found_face
from fer.params import DETECTORS

RESAMPLES = 2000
ALLOWED = 3.0  # points

Right = NDArray[np.bool_]


def crops_of(
    faces: Faces, recognizer: Recognizer, margins: list[float], seed: int
) -> tuple[NDArray[np.int64], dict[float, NDArray[np.uint8]], float]:
    """Which faces were found, their crops by margin, and the median side of box over square."""
    numbers: list[int] = []
    crops: dict[float, list[NDArray[np.uint8]]] = {margin: [] for margin in margins}
    sizes = []
    for number, picture, square, box in find_in_stills(faces, recognizer.detector, seed):
        if box is None:
            continue
        numbers.append(number)
        sizes.append(max(box.width, box.height) / (square[2] - square[0]))
        for margin, listed in crops.items():
            found = found_face(
                picture, box, margin, landmarks=recognizer.landmarks, align=recognizer.faces.align
            )
            listed.append(found.crop)
    if not numbers:
        raise SystemExit("No face was found, so there is nothing to compare. Take more: --count.")
    stacked = {margin: np.stack(listed) for margin, listed in crops.items()}
    return np.array(numbers), stacked, float(np.median(sizes))


def loss(own: Right, other: Right, seed: int) -> tuple[float, float, float]:
    """Points of accuracy lost, and the bounds of the 95 % interval; images are resampled."""
    gaps = own.astype(np.float64) - other
    rng = np.random.default_rng(seed)
    drawn = [gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return 100 * float(gaps.mean()), 100 * float(low), 100 * float(high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="package folder or model.onnx; default: the shipped model")
    parser.add_argument("--faces", type=Path, help="prepared table or archive of FER2013")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--count", type=int, help="that many faces, drawn by the seed; else all")
    parser.add_argument("--margins", type=float, nargs="+", default=[FacesParams().margin])
    parser.add_argument("--detector", default="dlib-hog", choices=DETECTORS)
    parser.add_argument("--align", action="store_true", help="turn crops upright")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args()
    settings = FacesParams.model_validate(
        {"detector": arguments.detector, "align": arguments.align, "max_side": 640}
    )
    recognizer = Recognizer.load(Path(arguments.model) if arguments.model else None, faces=settings)
    faces = read_faces(arguments.faces or default_source(), arguments.split)
    faces = faces.shuffled(arguments.seed, arguments.count)
    begun = time.monotonic()
    found, crops, size = crops_of(faces, recognizer, arguments.margins, arguments.seed)
    answers = recognizer.classifier.probabilities(faces.pixels).argmax(axis=1)
    labels, own = faces.labels[found], answers[found]
    document: dict[str, Any] = {
        "split": arguments.split,
        "detector": arguments.detector,
        "align": arguments.align,
        "seed": arguments.seed,
        "faces": len(faces.labels),
        "found": len(found),
        "box_over_square": round(size, 3),
        "accuracy_of_all": float((answers == faces.labels).mean()),
        "accuracy_of_found": float((own == labels).mean()),
        "margins": {},
    }
    for margin, squares in crops.items():
        other = recognizer.classifier.probabilities(squares).argmax(axis=1)
        lost, low, high = loss(own == labels, other == labels, arguments.seed)
        document["margins"][str(margin)] = {
            "accuracy": float((other == labels).mean()),
            "lost_points": round(lost, 2),
            "interval": [round(low, 2), round(high, 2)],
            "answers_that_differ": round(float((other != own).mean()), 4),
        }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(
        f"{recognizer.model}, {arguments.detector}, {arguments.split}: {len(found)} of "
        f"{len(faces.labels)} faces found ({len(found) / len(faces.labels):.1%}), "
        f"{time.monotonic() - begun:.0f} s\nFER2013's own crops: {(own == labels).mean():.2%} "
        f"({document['accuracy_of_all']:.2%} with those not found)\n"
        f"{'margin':>8}{'accuracy':>10}{'points lost':>13}{'95 % interval':>18}{'differ':>9}"
    )
    for margin, one in document["margins"].items():
        low, high = one["interval"]
        print(
            f"{margin:>8}{one['accuracy']:>10.2%}{one['lost_points']:>13.2f}"
            f"{f'{low:.2f} to {high:.2f}':>18}{one['answers_that_differ']:>9.1%}"
        )
    print(f"wanted: at most {ALLOWED:g} points lost")


if __name__ == "__main__":
    main()
