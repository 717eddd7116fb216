"""Made scenes whose truth is known, analysed as any video is: who was where, what changed when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import moving
import numpy as np
import pytest
import scoring

from fer.expressions import EXPRESSIONS
from fer.inference.recognizer import Recognizer
from fer.inference.video import analyze_video
from fer.inference.video_parts import read_video
from fer.params import TimelineParams, VideoParams

# The stand-in model is sure of nothing: its best answer is some 50 %.
PARAMS = VideoParams(timeline=TimelineParams(enter=0.4, leave=0.3))
Analyse = Callable[[moving.Scene], scoring.Score]


def look(seed: int, expression: int) -> moving.Look:
    """A drawn face in such light that the stand-in model takes it for an expression."""
    drawn = moving.drawn_look(seed).pixels.astype(float)
    side = len(drawn)
    middle = drawn[side // 8 : -side // 8, side // 8 : -side // 8].mean()
    pixels = np.clip(drawn * (expression + 0.5) * 256 / 7 / middle, 0, 255)
    return moving.Look(pixels.astype(np.uint8), expression)


@pytest.fixture(scope="module")
def looks() -> list[moving.Look]:
    return [look(2, 4), look(5, 4), look(8, 4), look(2, 2), look(5, 2), look(8, 2)]


@pytest.fixture
def analyse(model: Path, tmp_path: Path) -> Analyse:
    def run(scene: moving.Scene) -> scoring.Score:
        clip = scene.write(tmp_path / "scene.mp4")
        out = tmp_path / "scene.parquet"
        summary = analyze_video(clip, Recognizer.load(model), out, params=PARAMS)
        return scoring.score(scene, read_video(out).to_pylist(), summary.episodes)

    return run


def test_three_people_side_by_side(analyse: Analyse, looks: list[moving.Look]) -> None:
    score = analyse(moving.make_scene("simple", looks, 0, seconds=2, persons=3))
    assert (score.frames, score.missing, score.present) == (50, 0, 150)
    assert score.found >= 145
    assert (score.switches, score.wrong, score.stray) == (0, 0, 0)


def test_two_who_cross(analyse: Analyse, looks: list[moving.Look]) -> None:
    score = analyse(moving.make_scene("crossing", looks, 1, seconds=3.5))
    assert score.missing == score.stray == 0
    assert score.found > 0.9 * score.present
    assert score.wrong <= 0.02 * score.found


def test_a_change_of_expression(analyse: Analyse, looks: list[moving.Look]) -> None:
    score = analyse(moving.make_scene("changing", looks, 2, seconds=3.5, persons=1))
    assert score.changes == score.readable == len(score.errors) == 1
    assert score.errors[0] <= 3
    assert (score.switches, score.missing) == (0, 0)


def test_frames_with_nobody(analyse: Analyse, looks: list[moving.Look]) -> None:
    scene = moving.make_scene("empty", looks, 3, seconds=5)
    score = analyse(scene)
    assert score.missing == score.stray == 0
    assert 40 < score.null == score.empty
    assert score.found > 0.9 * score.present > 0


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["crossing", "changing"])
def test_fer2013_faces(shared: Path, tmp_path: Path, kind: str) -> None:
    """A small version of benchmarks/tracking.py, with the model that ships."""
    from casting import choose_looks, read_faces

    recognizer = Recognizer.load()
    faces = read_faces(shared / "data" / "fer2013.zip")
    looks = choose_looks(faces, recognizer.classifier, recognizer.detector, 14, 0)
    scene = moving.make_scene(kind, looks, 0, seconds=4)
    out = tmp_path / "scene.parquet"
    summary = analyze_video(scene.write(tmp_path / "scene.mp4"), recognizer, out)
    score = scoring.score(scene, read_video(out).to_pylist(), summary.episodes)
    assert score.missing == 0
    assert score.found > 0.85 * score.present
    assert score.wrong <= 0.02 * score.found
    assert len(score.errors) == score.readable
    assert max(score.errors, default=0) <= 3


def true_rows(scene: moving.Scene) -> list[dict[str, Any]]:
    """What a perfect analysis would write."""
    rows: list[dict[str, Any]] = []
    names = ("box_left", "box_top", "box_right", "box_bottom")
    for number in range(scene.frames):
        seen = [one for one in scene.truth(number) if one.visible >= 0.7]
        for place, one in enumerate(seen):
            box = dict(zip(names, one.box, strict=True))
            said = EXPRESSIONS[one.expression]
            rows.append(
                {
                    "frame": number,
                    "face": place,
                    "track": one.person,
                    "expression": said,
                    "confidence": 1.0,
                }
                | box
            )
        if not seen:
            rows.append({"frame": number, "face": None, "track": None, "expression": None})
    return rows


def test_the_measure_finds_nothing_wrong_with_the_truth() -> None:
    blank = [moving.Look(np.zeros((48, 48), np.uint8), place % 7) for place in range(8)]
    for kind in moving.KINDS:
        scene = moving.make_scene(kind, blank, 4, seconds=7)
        episodes = [
            {"track": who, "expression": EXPRESSIONS[one.expression], "start": change / moving.FPS}
            for who, actor in enumerate(scene.actors)
            for one, change in zip(actor.looks[1:], actor.changes, strict=True)
        ]
        score = scoring.score(scene, true_rows(scene), episodes)
        assert score.missing == score.switches == score.wrong == score.stray == 0, kind
        assert score.found == score.present > 0
        assert score.null == score.empty
        assert score.errors == [0.0] * score.changes
        assert (score.changes > 0) == (kind == "changing")


def test_the_measure_finds_what_is_wrong() -> None:
    blank = [moving.Look(np.zeros((48, 48), np.uint8), place % 7) for place in range(8)]
    scene = moving.make_scene("simple", blank, 4, seconds=4)
    rows = true_rows(scene)
    for row in rows:
        if row["frame"] >= 60:  # the two change numbers
            row["track"] = 1 - row["track"]
    rows = [row for row in rows if row["frame"] != 3]
    rows.append(rows[0] | {"box_left": 5000, "box_right": 5100, "track": 9})
    score = scoring.score(scene, rows, [])
    assert (score.missing, score.switches, score.stray) == (1, 2, 1)
    assert score.wrong == 2 * 40
    assert score.found == score.present - 2


def test_scenes_are_the_same_by_seed_and_differ_between_seeds() -> None:
    blank = [moving.Look(np.full((48, 48), 200, np.uint8), 0)]
    one, again, other = (moving.make_scene("simple", blank, seed, 1) for seed in (0, 0, 1))
    assert np.array_equal(one.frame(7), again.frame(7))
    assert not np.array_equal(one.frame(7), other.frame(7))
    assert one.truth(7) == again.truth(7) != other.truth(7)
