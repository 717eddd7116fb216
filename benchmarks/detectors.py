"""Recall and false alarms of the detectors on photographs, and the smallest face each finds.

    python benchmarks/detectors.py --photographs folder      # with the files of `FACES`
    python benchmarks/detectors.py --detectors dlib-hog haar --json

Three questions: how many of the faces of real photographs are found; from which size on, when
the same photographs are scaled down; and how many boxes are drawn in pictures that show no face.
Photographs are scikit-image's, and those of a folder whose faces `FACES` lists. OpenCV's Haar
cascade is here as a yardstick only. A detector whose model file is missing is left out, and that
is said. A face counts as found where a box overlaps the known one by 0.3 (intersection over
union: detectors frame faces differently).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import moving
import numpy as np
from numpy.typing import NDArray

from fer.errors import DetectorError
from fer.faces.detector import Detection, make_detector
from fer.inference.images import read_image
from fer.params import DETECTORS, FacesParams

Pixels = NDArray[np.uint8]
Detect = Callable[[Pixels], list[Detection]]
Box = tuple[float, float, float, float]

MATCH = 0.3
SIZES = (120, 100, 80, 60, 50, 40, 30, 20)
"""Sides to which the faces of the photographs are scaled, px."""
NO_FACE = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket",
           "text", "hubble_deep_field", "retina", "immunohistochemistry")  # fmt: skip
"""Pictures of scikit-image that show no human face (chelsea is a cat)."""

FACES: dict[str, Sequence[Box]] = {
    "biden.jpg": [(449, 253, 747, 551)],
    "obama-720p.jpg": [(586, 90, 760, 262)],
    "obama-and-biden.jpg": [(738, 428, 928, 618), (1132, 408, 1320, 595), (1600, 1065, 1758, 1223)],
    "obama-partial.jpg": [(-57, 165, 189, 385)],
    "obama-serious.jpg": [(538, 172, 951, 586)],
    "two-people.jpg": [(780, 75, 963, 257), (246, 62, 398, 215)],
}
"""Boxes, brows to chin, by file; the largest side is the face's size."""


@dataclasses.dataclass(frozen=True)
class Photograph:
    """RGB pixels, uint8 (h, w, 3), and the box of every face; `only` one of them is asked for."""

    name: str
    pixels: Pixels
    faces: tuple[Box, ...]
    only: int | None = None

    def scaled(self, factor: float) -> Photograph:
        """The photograph at another size."""
        import cv2

        height, width = self.pixels.shape[:2]
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        return Photograph(self.name, pixels, tuple(_times(box, factor) for box in self.faces))


def photographs(folder: Path | None) -> list[Photograph]:
    """scikit-image's astronaut, and the files of `FACES` that the folder has."""
    from skimage import data

    found = [Photograph("astronaut", np.asarray(data.astronaut()), ((175, 76, 266, 167),))]
    if folder is None:
        return found
    for name, boxes in FACES.items():
        path = folder / name
        if path.is_file():
            picture = read_image(path, colour=True)
            assert picture.rgb is not None
            faces = tuple(_times(box, 1 / picture.reduction) for box in boxes)
            found.append(Photograph(name, picture.rgb, faces))
    return found


def no_faces() -> list[Photograph]:
    """Pictures in which every box is a false alarm."""
    from skimage import data

    found = []
    for name in NO_FACE:
        pixels = np.asarray(getattr(data, name)())
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        found.append(Photograph(name, np.ascontiguousarray(pixels[:, :, :3]), ()))
    return found


def small_faces() -> list[Photograph]:
    """100 faces of Labeled Faces in the Wild, 25 px each in scikit-image, enlarged into rooms."""
    from skimage import data

    faces = np.rint(np.asarray(data.lfw_subset())[:100] * 255).astype(np.uint8)
    found = []
    for first in range(0, len(faces), 6):
        part = list(faces[first : first + 6])
        picture, squares = moving.still(part, 132, np.random.default_rng(first))
        rgb = np.repeat(picture[:, :, None], 3, axis=2)
        found.append(Photograph(f"lfw {first}", rgb, tuple(squares)))
    return found


def haar() -> Detect:
    """OpenCV's cascade at its usual setting: scale 1.1, 5 neighbours."""
    import cv2

    if not hasattr(cv2, "CascadeClassifier"):
        raise DetectorError(f"OpenCV {cv2.__version__} has no CascadeClassifier.")
    folder = Path(cv2.__file__).parent / "data"
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))

    def detect(pixels: Pixels) -> list[Detection]:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        boxes = cascade.detectMultiScale(grey, 1.1, 5, minSize=(20, 20))
        return [Detection(x, y, x + w, y + h, 1.0) for x, y, w, h in boxes]

    return detect


def detector(name: str, upsample: int, max_side: int) -> Detect:
    """A detector by name, as `faces` of params.yaml makes it; or the yardstick."""
    if name == "haar":
        return haar()
    params = FacesParams.model_validate(
        {"detector": name, "upsample": upsample, "max_side": max_side}
    )
    return make_detector(params).detect


def judged(pictures: Sequence[Photograph], detect: Detect) -> dict[str, Any]:
    """Faces, those found, boxes on no face, and CPU milliseconds per picture."""
    faces = found = stray = 0
    begun = time.process_time()
    for one in pictures:
        boxes = [(box.left, box.top, box.right, box.bottom) for box in detect(one.pixels)]
        asked = one.faces if one.only is None else one.faces[one.only : one.only + 1]
        hit = [any(overlap(face, box) >= MATCH for box in boxes) for face in asked]
        faces, found = faces + len(hit), found + sum(hit)
        # A second box on a known face is no false alarm, nor is one that frames it otherwise.
        stray += sum(all(overlap(face, box) < 0.1 for face in one.faces) for box in boxes)
    spent = 1000 * (time.process_time() - begun) / max(1, len(pictures))
    return {"faces": faces, "found": found, "false": stray, "cpu_ms": round(spent, 1)}


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)


def shrunken(pictures: Sequence[Photograph], size: int) -> list[Photograph]:
    """Each photograph once for each face of it that then is `size` px."""
    found = []
    for one in pictures:
        for place, face in enumerate(one.faces):
            factor = size / max(face[2] - face[0], face[3] - face[1])
            if factor <= 1.1:  # enlarging adds nothing that a detector could see
                found.append(dataclasses.replace(one.scaled(factor), only=place))
    return found


def _times(box: Box, factor: float) -> Box:
    return (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, help="folder with files that `FACES` lists")
    parser.add_argument("--detectors", nargs="+", default=[*DETECTORS, "haar"])
    parser.add_argument("--upsample", type=int, default=1, help="of dlib's detectors")
    parser.add_argument("--max-side", type=int, default=960, help="px; larger ones are reduced")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args()
    real = [
        one.scaled(min(1.0, arguments.max_side / max(one.pixels.shape)))
        for one in photographs(arguments.photographs)
    ]
    sets = {"photographs": real, "lfw": small_faces(), "no face": no_faces()}
    sets |= {f"{size} px": shrunken(real, size) for size in arguments.sizes}
    results: dict[str, Any] = {}
    for name in arguments.detectors:
        try:
            detect = detector(name, arguments.upsample, arguments.max_side)
        except DetectorError as error:
            results[name] = {"left_out": str(error)}
            continue
        results[name] = {title: judged(pictures, detect) for title, pictures in sets.items()}
    if arguments.json:
        settings = {"upsample": arguments.upsample, "max_side": arguments.max_side}
        print(json.dumps(settings | {"detectors": results}, indent=2))
        return
    print(f"dlib's with upsample {arguments.upsample}; at most {arguments.max_side} px")
    print(f"{'':<14}" + "".join(f"{title:>13}" for title in sets) + f"{'CPU ms':>9}")
    for name, one in results.items():
        if "left_out" in one:
            print(f"{name:<14} left out: {one['left_out']}")
            continue
        cells = [f"{a['found']}/{a['faces']} +{a['false']}" for a in one.values()]
        cpu = one["photographs"]["cpu_ms"]
        print(f"{name:<14}" + "".join(f"{cell:>13}" for cell in cells) + f"{cpu:>9.0f}")
    print("found/faces +false alarms; by size, each photograph once per face, which is that large")


if __name__ == "__main__":
    main()
