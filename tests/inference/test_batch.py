"""Batches: everything once, nothing lost, whatever happens in between."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from fer.errors import ConflictError, DetectorError, StoreError, UnavailableError, UsageError
from fer.faces.pose import Pose
from fer.inference import batch as batch_module
from fer.inference.batch import run_batch
from fer.inference.inputs import FolderInputs, PictureFile
from fer.inference.outputs import FolderOutput, Output
from fer.inference.recognizer import Recognizer
from fer.inference.results import read_parts
from fer.params import FacesParams

Encode = Callable[..., bytes]
# HOG finds a chance face now and then just over its threshold; what is counted here is not that.
SURE = FacesParams(min_score=0.3)


def recorded(output: Path) -> Counter[str]:
    """How many times each picture is recorded, by file name; faces of one picture count once."""
    names: Counter[str] = Counter()
    for one in read_parts(output).to_pylist():
        if not one["face"]:
            names[one["uri"].rsplit("/", 1)[-1]] += 1
    for path in (output / "quarantine").glob("*.parquet"):
        for one in pq.read_table(path).to_pylist():
            names[one["uri"].rsplit("/", 1)[-1]] += 1
    return names


def test_a_folder_with_everything_in_it(model: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    summary = run_batch(
        folder,
        output,
        model=model,
        faces=SURE,
        part_size=4,
        progress=lambda *at: seen.append(at),
    )
    assert (summary.pictures, summary.analysed, summary.quarantined) == (9, 6, 3)
    assert (summary.faces, summary.without_face, summary.failed) == (4, 2, 0)
    assert (summary.skipped, summary.ignored) == (0, 1)
    assert sum(summary.expressions.values()) == 4
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    rows = read_parts(output).to_pylist()
    by_name = {row["uri"].rsplit("/", 1)[-1]: row for row in rows}
    assert set(by_name) == {"a.jpg", "b.png", "c%20%C3%A9.JPG", "d.webp", "e-wall.png", "f-dot.png"}
    happy, wall = by_name["a.jpg"], by_name["e-wall.png"]
    assert happy["face"] == 0
    assert abs(happy["box_left"] - 175) < 15
    assert happy["model_digest"] == summary.model_digest
    assert happy["run_id"] == summary.run_id
    assert happy["confidence"] == max(value for key, value in happy.items() if key[:2] == "p_")
    assert wall["face"] is None
    assert wall["expression"] is None
    assert (wall["width"], wall["height"], wall["frame"]) == (120, 90, 0)

    reasons = {
        row["uri"].rsplit("/", 1)[-1]: row["reason"]
        for path in (output / "quarantine").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert "truncated" in reasons["g-cut.jpg"]
    assert "text" in reasons["h-text.jpg"]
    assert "empty" in reasons["i-empty.jpg"]
    assert json.loads((output / "summary.json").read_text()) == summary.as_dict()
    assert (output / "runs" / f"{summary.run_id}.json").is_file()


def test_the_batch_says_what_analyze_says(model: Path, folder: Path, tmp_path: Path) -> None:
    recognizer = Recognizer.load(model, faces=SURE)
    run_batch(folder, tmp_path / "out", model=recognizer)
    for row in read_parts(tmp_path / "out").to_pylist():
        if row["face"] is not None and row["uri"].endswith(("a.jpg", "b.png", "d.webp")):
            (face,) = recognizer.analyze(folder.joinpath(*_inside(row["uri"], folder)))
            assert row["expression"] == face.prediction.expression
            assert row["confidence"] == pytest.approx(face.prediction.confidence, abs=1e-5)
            assert row["box_top"] == pytest.approx(face.detection.top)


def _inside(uri: str, folder: Path) -> tuple[str, ...]:
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(uri).path)).relative_to(folder).parts


def test_a_second_run_takes_only_what_is_new(
    model: Path, folder: Path, tmp_path: Path, astronaut: np.ndarray, encode: Encode
) -> None:
    output = tmp_path / "out"
    run_batch(folder, output, model=model)
    before = {path: path.read_bytes() for path in output.rglob("part-*")}
    again = run_batch(folder, output, model=model)
    assert (again.skipped, again.quarantined_before, again.analysed) == (9, 3, 0)
    assert again.quarantined == 0
    assert {path: path.read_bytes() for path in output.rglob("part-*")} == before

    (folder / "new.jpg").write_bytes(encode(astronaut, "JPEG"))
    # A picture that changed is new; so is a bad one that was replaced.
    (folder / "a.jpg").write_bytes(encode(astronaut[:, ::-1], "JPEG", quality=80))
    (folder / "g-cut.jpg").write_bytes(encode(astronaut, "JPEG", quality=81))
    third = run_batch(folder, output, model=model)
    assert (third.analysed, third.skipped) == (3, 7)
    assert recorded(output)["a.jpg"] == 2  # both contents, told apart by etag
    assert run_batch(folder, output, model=model).analysed == 0


def test_another_model_or_other_faces_params_are_another_result(
    model: Path, folder: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    output = tmp_path / "out"
    run_batch(folder, output, model=model)
    other = make_model(tmp_path / "other.onnx", shift=0.2)
    assert run_batch(folder, output, model=other).analysed == 6
    assert run_batch(folder, output, model=model, faces=FacesParams(margin=0.2)).analysed == 6
    assert run_batch(folder, output, model=model).analysed == 0
    assert len({row["model_digest"] for row in read_parts(output).to_pylist()}) == 2


def test_poses_come_with_the_file_of_the_landmarks(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poses() -> set[float | None]:
        """Of the last run."""
        rows = [row for row in read_parts(output).to_pylist() if row["run_id"] == last.run_id]
        return {row["quality_pose"] for row in rows if row["face"] is not None}

    output = tmp_path / "out"
    last = run_batch(folder, output, model=model, faces=SURE)
    assert poses() == {None}
    turned = SimpleNamespace(pose=lambda *_: Pose(roll=3.0, yaw=4.0))
    monkeypatch.setattr("fer.faces.landmarks.make_landmarks", lambda _: turned)
    last = run_batch(folder, output, model=model, faces=SURE)
    assert (last.analysed, poses()) == (6, {5.0})
    assert run_batch(folder, output, model=model, faces=SURE).analysed == 0


def test_csv_on_request_also_for_earlier_parts(model: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_batch(folder, output, model=model, part_size=2)
    assert not list(output.rglob("*.csv"))
    run_batch(folder, output, model=model, csv=True)
    for path in output.rglob("part-*.parquet"):
        lines = path.with_suffix(".csv").read_text().splitlines()
        assert len(lines) == 1 + pq.read_metadata(path).num_rows


@pytest.mark.slow
def test_killed_again_and_again_each_picture_is_there_once(
    model: Path, tmp_path: Path, astronaut: np.ndarray, encode: Encode
) -> None:
    """kill -9 at moments the program does not choose, until a run gets to its end."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(20):
        data = encode(np.roll(astronaut[:320, :320], number, axis=1), "JPEG")
        (folder / f"{number:02}.jpg").write_bytes(data if number % 5 else data[:3000])
    script = (
        "import sys\nfrom fer.inference.batch import run_batch\n"
        "run_batch(sys.argv[1], sys.argv[2], model=sys.argv[3], part_size=2)\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(output), str(model)]
    kills = 0
    for attempt in range(10):
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            had = len(list(output.rglob("part-*.parquet")))
            deadline = time.monotonic() + 300  # on a machine that is busy otherwise
            while process.poll() is None and time.monotonic() < deadline:
                # The next part begins, the next but one ...: each kill lands elsewhere in a part.
                grown = len(list(output.rglob("part-*.parquet"))) - had
                if kills < 4 and grown > attempt % 3:
                    time.sleep(0.03 * (attempt % 4))
                    process.send_signal(signal.SIGKILL)
                    break
            process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.returncode
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    assert recorded(output) == Counter({f"{number:02}.jpg": 1 for number in range(20)})


def test_what_cannot_be_read_now_is_tried_again(
    model: Path, tmp_path: Path, folder: Path, astronaut: np.ndarray, encode: Encode
) -> None:
    link = folder / "j.jpg"
    link.symlink_to(tmp_path / "not-yet.jpg")
    output = tmp_path / "out"
    first = run_batch(folder, output, model=model)
    assert (first.analysed, first.failed) == (6, 1)
    assert [one["kind"] for one in first.problems].count("failed") == 1
    (tmp_path / "not-yet.jpg").write_bytes(encode(astronaut, "JPEG"))
    second = run_batch(folder, output, model=model)
    assert (second.analysed, second.failed, second.skipped) == (1, 0, 9)


class Restarting(FolderInputs):
    """A folder on a server that does not give one of the pictures the first times."""

    refusals = 0

    def read(self, picture: PictureFile) -> bytes:
        if picture.uri.endswith("/a.jpg") and self.refusals:
            self.refusals -= 1
            raise UnavailableError("broke off")
        return super().read(picture)


@pytest.mark.parametrize(("refusals", "failed"), [(1, 0), (2, 0), (3, 1)])
def test_what_storage_did_not_give_is_asked_for_again_at_the_end(
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusals: int,
    failed: int,
) -> None:
    whole = run_batch(folder, tmp_path / "whole", model=model)
    inputs = Restarting(folder)
    inputs.refusals = refusals
    monkeypatch.setattr(batch_module, "open_inputs", lambda _: inputs)
    monkeypatch.setattr(batch_module, "PAUSES", (0.0, 0.0))
    summary = run_batch(folder, tmp_path / "out", model=model)
    assert (summary.failed, summary.analysed) == (failed, whole.analysed - failed)
    assert inputs.refusals == 0
    if not failed:
        rows, others = (read_parts(tmp_path / name).to_pylist() for name in ("out", "whole"))
        assert [(row["uri"], row["face"], row["confidence"]) for row in rows] == [
            (row["uri"], row["face"], row["confidence"]) for row in others
        ]


class Vanishing(FolderInputs):
    """A folder whose pictures go between being listed and being read."""

    def read(self, picture: object) -> bytes:
        Path(picture.key).unlink(missing_ok=True)  # type: ignore[attr-defined]
        return super().read(picture)  # type: ignore[arg-type]


def test_an_input_that_goes_away_ends_the_run_and_keeps_what_is_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.png").write_bytes(encode(np.zeros((4, 4), np.uint8), "PNG"))
    run_batch(folder, tmp_path / "out", model=model)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + b" ")
    monkeypatch.setattr(batch_module, "open_inputs", lambda where: Vanishing(Path(where)))
    with pytest.raises(UnavailableError, match="20 pictures in a row"):
        run_batch(folder, tmp_path / "out", model=model)
    assert len(recorded(tmp_path / "out")) == 30


def test_a_picture_that_breaks_the_detector_does_not_end_the_run(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    recognizer = Recognizer.load(model)

    class Breaking:
        name, colour, max_side, smallest_face = "breaking", False, 1600, 40.0
        wrong: type[Exception] = RuntimeError

        def detect(self, image: np.ndarray) -> list[object]:
            if image.shape == (90, 120):
                raise self.wrong("out of order")
            return []

    recognizer._detector = detector = Breaking()  # type: ignore[assignment]
    summary = run_batch(folder, tmp_path / "out", model=recognizer)
    assert (summary.failed, summary.analysed) == (1, 5)
    assert "RuntimeError: out of order" in str(summary.problems)
    # A detector that says itself that it cannot work ends it: all would fail.
    detector.wrong = DetectorError
    with pytest.raises(DetectorError):
        run_batch(folder, tmp_path / "out", model=recognizer)


def test_bad_inputs_and_outputs_are_explained(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    for wrong, message in [
        (tmp_path / "none", "There is no"),
        (empty, r"holds no picture \(1 other files"),
        ("ftp://host/x", "cannot be read"),
    ]:
        with pytest.raises(UsageError, match=message):
            run_batch(wrong, out, model=model)
    assert not out.exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        run_batch(folder, file, model=model)
    with pytest.raises(StoreError, match="cannot be used"):
        run_batch(folder, file / "below", model=model)
    with pytest.raises(UsageError, match="cannot be written"):
        run_batch(folder, "ftp://host/x", model=model)
    with pytest.raises(UsageError, match="part_size"):
        run_batch(folder, out, model=model, part_size=0)


def test_one_batch_at_a_time_writes_to_a_folder(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="Another batch"):
            run_batch(folder, out, model=model)
    finally:
        os.close(descriptor)
    assert run_batch(folder, out, model=model).analysed == 6


class Unlocked(FolderOutput):
    """An output that nothing locks, as a bucket is."""

    only_writer = Output.only_writer


def test_of_two_batches_without_a_lock_the_one_begun_last_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()

    def add(name: str) -> None:
        (folder / name).write_bytes(encode(np.full((4, 4), len(name), np.uint8), "PNG"))

    for number in range(12):
        add(f"{number:02}.png")
    monkeypatch.setattr(batch_module, "open_output", lambda where: Unlocked(Path(where)))
    recognizer = Recognizer.load(model)
    later = []

    def begin_another(done: int, _: int) -> None:
        """In the midst of the second part; the picture shifts the bounds of all that follow."""
        if done == 6 and not later:
            add("00-new.png")
            later.append(run_batch(folder, out, model=recognizer, part_size=4))

    with pytest.raises(ConflictError, match=r"Run .* has taken over file://.*/out"):
        run_batch(folder, out, model=recognizer, part_size=4, progress=begin_another)
    assert (later[0].analysed, later[0].skipped) == (9, 4)
    assert recorded(out) == Counter({path.name: 1 for path in folder.iterdir()})
    assert json.loads((out / "summary.json").read_text()) == later[0].as_dict()


def test_a_full_disk_leaves_nothing_half_written(model: Path, folder: Path, tmp_path: Path) -> None:
    """A file size limit stands in for the disk: the system refuses the write in the same way."""
    script = (
        "import resource, signal, sys\nfrom fer.inference.batch import run_batch\n"
        "from fer.errors import StoreError\n"
        "from fer.inference.recognizer import Recognizer\n"
        "recognizer = Recognizer.load(sys.argv[3]); recognizer.analyze(sys.argv[4])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n    run_batch(sys.argv[1], sys.argv[2], model=recognizer)\n"
        "except StoreError as error:\n    print(error)\n    sys.exit(7)\n"
    )
    out = tmp_path / "out"
    result = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(out), str(model), str(folder / "a.jpg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    assert "run the same command again" in result.stdout
    assert not list((out / "parts").glob("*"))
    assert not list(out.rglob(".*"))
    assert run_batch(folder, out, model=model).analysed == 6
    assert set(recorded(out).values()) == {1}


def test_a_single_picture_is_an_input(model: Path, folder: Path, tmp_path: Path) -> None:
    summary = run_batch(folder / "a.jpg", tmp_path / "out", model=model, faces=SURE)
    assert (summary.pictures, summary.faces) == (1, 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(
    model: Path, tmp_path: Path, astronaut: np.ndarray, encode: Encode
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    first = folder / "0000.png"
    first.write_bytes(encode(np.tile(astronaut, (2, 3, 1)), "PNG"))
    for number in range(1, 100):
        os.link(first, folder / f"{number:04}.png")
    script = (
        "import resource, sys\nfrom fer.inference.batch import run_batch\n"
        "from fer.params import FacesParams\n"
        "peak = []\n"
        "def note(done, total):\n"
        "    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "run_batch(sys.argv[1], sys.argv[2], model=sys.argv[3], part_size=16,\n"
        "          faces=FacesParams(upsample=0), progress=note)\n"
        "print(peak[30], peak[-1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "out"), str(model)],
        capture_output=True,
        text=True,
        check=True,
    )
    early, late = (int(value) for value in result.stdout.split())
    # One such picture is 4.7 MB of RGB: 70 more of them, kept, would be over 300 MB.
    assert late - early < 30_000


@pytest.mark.shared
def test_real_photographs(model: Path, shared: Path, tmp_path: Path) -> None:
    summary = run_batch(shared / "media", tmp_path / "out", model=model)
    assert (summary.pictures, summary.analysed, summary.faces) == (7, 7, 10)
    assert (summary.quarantined, summary.without_face, summary.ignored) == (0, 0, 3)
