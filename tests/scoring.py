"""What an analysis made of a moving scene, compared with its truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from moving import FPS, Box, Scene

from fer.expressions import EXPRESSIONS

_PRESENT = 0.7  # share of a face that must be seen for it to count as present
_SURE = 0.5  # probability of an expression that is read, as episodes want it
_MATCH = 0.4  # overlap from which a box is that of a face


@dataclass
class Score:
    """What an analysis made of a scene.

    Attributes:
        frames: of the scene; `missing` of them have no row at all.
        present: persons times frames in which at least 0.7 of the face can be seen.
        found: of these, with a box on the face.
        switches: times that a person's number is another than when last found.
        wrong: of the found, those under a number that is not the person's: each number belongs
            to at most one person, and the other way round, as fits best (as in the ID measures
            of E. Ristani et al., 2016).
        stray: boxes on nobody.
        empty: frames in which nobody can be seen; `null` of them have just a row without face.
        changes: changes of expression; `readable` are those before and after which the rows say
            the given expression with 0.5 or more, more often than not: without that no episode
            begins, and there is nothing to date.
        errors: of the readable changes that an episode dates, in frames.
    """

    frames: int = 0
    missing: int = 0
    present: int = 0
    found: int = 0
    switches: int = 0
    wrong: int = 0
    stray: int = 0
    empty: int = 0
    null: int = 0
    changes: int = 0
    readable: int = 0
    errors: list[float] = field(default_factory=list)

    def __add__(self, other: Score) -> Score:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Score(*(one + another for one, another in pairs))


def score(
    scene: Scene, rows: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]]
) -> Score:
    """Compare an analysis with the truth.

    Args:
        scene: what was analysed.
        rows: of the results, in the columns of `fer.inference.results`.
        episodes: of the summary.
    """
    result = Score(frames=scene.frames)
    by_frame: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_frame.setdefault(row["frame"], []).append(row)
    last: dict[int, int] = {}
    together: dict[tuple[int, int], int] = {}
    for number in range(scene.frames):
        listed, truth = by_frame.get(number, []), scene.truth(number)
        result.missing += not listed
        faces = [row for row in listed if row["face"] is not None]
        if not truth:
            result.empty += 1
            result.null += len(listed) == 1 and not faces
        pairs = _matched([one.box for one in truth], [_box_of(row) for row in faces])
        for one in truth:
            result.present += one.visible >= _PRESENT
        for place, column in pairs:
            one, track = truth[place], faces[column]["track"]
            if one.visible < _PRESENT:
                continue
            result.found += 1
            result.switches += last.get(one.person, track) != track
            last[one.person] = track
            together[one.person, track] = together.get((one.person, track), 0) + 1
        taken = {column for _, column in pairs}
        for column, row in enumerate(faces):
            near = any(_overlap(one.box, _box_of(row)) > 0.1 for one in truth)
            result.stray += column not in taken and not near
    owner = _owners(together)
    result.wrong = sum(
        count for (person, track), count in together.items() if owner.get(person) != track
    )
    for person, actor in enumerate(scene.actors):
        tracks = {track for (who, track) in together if who == person}
        own = [row for row in rows if row["track"] in tracks]
        ends = (0, *actor.changes, scene.frames)
        read = [
            _says(own, EXPRESSIONS[look.expression], *part)
            for look, part in zip(actor.looks, itertools.pairwise(ends), strict=True)
        ]
        for place, change in enumerate(actor.changes, start=1):
            result.changes += 1
            if not (read[place - 1] and read[place]):
                continue
            result.readable += 1
            wanted = EXPRESSIONS[actor.looks[place].expression]
            starts = [
                abs(one["start"] * FPS - change)
                for one in episodes
                if one["track"] in tracks and one["expression"] == wanted
            ]
            if starts and min(starts) <= FPS:
                result.errors.append(round(min(starts), 2))
    return result


def _says(rows: Sequence[Mapping[str, Any]], expression: str, first: int, end: int) -> bool:
    """Whether more than half of these rows from one frame to another are sure of an expression."""
    said = [
        row["expression"] == expression and row["confidence"] >= _SURE
        for row in rows
        if first <= row["frame"] < end
    ]
    return 2 * sum(said) > len(said)


def _box_of(row: Mapping[str, Any]) -> Box:
    return (row["box_left"], row["box_top"], row["box_right"], row["box_bottom"])


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (sum(areas) - both)


def _matched(truth: Sequence[Box], found: Sequence[Box]) -> list[tuple[int, int]]:
    """Pairs of greatest total overlap, each above `_MATCH`."""
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array([[_overlap(one, other) for other in found] for one in truth])
    if not overlaps.size:
        return []
    overlaps[overlaps < _MATCH] = 0.0
    rows, columns = linear_sum_assignment(-overlaps)
    return [
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] > 0
    ]


def _owners(together: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """The number that is each person's: as many frames as possible under the own number."""
    from scipy.optimize import linear_sum_assignment

    persons = sorted({person for person, _ in together})
    tracks = sorted({track for _, track in together})
    counts = np.array([[together.get((one, other), 0) for other in tracks] for one in persons])
    if not counts.size:
        return {}
    rows, columns = linear_sum_assignment(-counts)
    return {persons[row]: tracks[column] for row, column in zip(rows, columns, strict=True)}
