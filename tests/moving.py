"""Moving scenes whose truth is known: faces that drift, cross, hide, change and go away.

A face is a square of grey pixels framed as FER2013's are. It is enlarged into a textured room,
its rim continued and blended so that a detector sees a head and not a card, and moved along a
path. Of every frame the truth is known: who is where, how much of the face can be seen, and
which expression it was given. `scoring.score` compares what an analysis wrote with that truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.expressions import Expression

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""left, top, right, bottom, px."""
Walk = Callable[[float], tuple[float, float, float] | None]
"""Time in s to the centre and side of a face's square, px; None where the person is away."""

WIDTH, HEIGHT, FPS = 640, 480, 25
KINDS = ("simple", "crossing", "pillar", "meeting", "changing", "empty")

# How dlib's HOG detector frames a FER2013 square: the box's side is 0.90 and its centre 0.087
# lower (medians of 245 faces in squares of 120 px), or 0.83 and 0.060 (466 faces, 132 px). The
# detector's sizes come in steps of 1.2, so between the two.
_FRAMED, _LOWER = 0.87, 0.07
_RIM = 1 / 3  # of the side, around the square
_FADE = 3  # frames that a change of expression takes, its date in their middle


@dataclass(frozen=True)
class Look:
    """One picture of a person: uint8 (n, n), and the index of what it expresses."""

    pixels: Pixels = field(repr=False)
    expression: int


@dataclass(frozen=True)
class Actor:
    """A person: pictures shown one after another, from frame 0 and from each of `changes`."""

    looks: tuple[Look, ...]
    walk: Walk
    changes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Truth:
    """One person of one frame; `visible` is the share of the face that can be seen."""

    person: int
    box: Box
    expression: int
    visible: float


@dataclass(frozen=True)
class Scene:
    """A scene of 640x480 at 25 frames/s; of two persons the later one is in front.

    Attributes:
        pillar: left and right edge of a bar in front of everybody, px; None for none.
    """

    kind: str
    frames: int
    actors: tuple[Actor, ...]
    seed: int
    pillar: tuple[int, int] | None = None

    def truth(self, number: int) -> list[Truth]:
        """Who is in a frame, wholly or in part."""
        placed = [(who, actor.walk(number / FPS)) for who, actor in enumerate(self.actors)]
        there = [(who, place) for who, place in placed if place is not None]
        found = []
        for order, (who, (x, y, side)) in enumerate(there):
            box = _framed(x, y, side)
            in_front = [_around(*place, 1 + _RIM) for _, place in there[order + 1 :]]
            if self.pillar:
                in_front.append((self.pillar[0], 0, self.pillar[1], HEIGHT))
            visible = _visible(box, in_front)
            if visible > 0:
                actor = self.actors[who]
                index = sum(number >= change for change in actor.changes)
                found.append(Truth(who, box, actor.looks[index].expression, visible))
        return found

    def frame(self, number: int) -> Pixels:
        """The picture, uint8 (480, 640)."""
        picture = self._room.copy()
        for actor in self.actors:
            place = actor.walk(number / FPS)
            if place is not None:
                _paste(picture, _shown(actor, number), *place)
        if self.pillar:
            left, right = self.pillar
            picture[:, left:right] = self._room[:, ::-1][:, left:right] * 0.55
        rng = np.random.default_rng([self.seed, number])
        picture += 2 * rng.standard_normal(picture.shape, np.float32)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    @cached_property
    def _room(self) -> NDArray[np.float32]:
        return room(np.random.default_rng(self.seed))

    def write(self, path: Path) -> Path:
        """Encode the scene with OpenCV."""
        import cv2

        size = (WIDTH, HEIGHT)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
        assert writer.isOpened()
        for number in range(self.frames):
            writer.write(cv2.cvtColor(self.frame(number), cv2.COLOR_GRAY2BGR))
        writer.release()
        return path


def room(rng: np.random.Generator) -> NDArray[np.float32]:
    """A background with texture at three scales and no face, float32 (480, 640)."""
    import cv2

    picture = np.full((HEIGHT, WIDTH), 120, np.float32)
    for cell, strength in ((160, 32), (40, 20), (8, 8)):
        coarse = rng.normal(0, strength, (HEIGHT // cell + 2, WIDTH // cell + 2))
        picture += cv2.resize(
            coarse.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(picture, 10, 245)


def still(faces: Sequence[Pixels], side: int, rng: np.random.Generator) -> tuple[Pixels, list[Box]]:
    """Up to six faces side by side in a room, and the square of each."""
    picture, squares = room(rng), []
    for place, pixels in enumerate(faces):
        x = 106 + 214 * (place % 3) + rng.uniform(-8, 8)
        y = 120 + 240 * (place // 3) + rng.uniform(-8, 8)
        _paste(picture, pixels.astype(np.float32), x, y, side)
        squares.append(_around(x, y, side, 1.0))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), squares


def make_scene(
    kind: str, looks: Sequence[Look], seed: int, seconds: float = 8.0, persons: int = 2
) -> Scene:
    """A scene of one of `KINDS`.

    Args:
        kind: simple: drifting side by side; crossing: two walk to and fro past one another;
            pillar: behind a bar as wide as a face; meeting: two approach, one half hidden, and
            part again; changing: drifting, with changes of expression; empty: one person
            after another walks through, with nobody in between.
        looks: pictures to choose from, in order; each person takes the next, and in `changing`
            the most alike of those with another expression for each change.
        seed: of everything that is random.
        seconds: length.
        persons: of simple and changing scenes, 1 to 3.
    """
    rng = np.random.default_rng(seed)
    frames = round(seconds * FPS)
    pillar = None
    if kind in {"simple", "changing"}:
        walks = [_drift(place, persons, rng) for place in range(persons)]
    elif kind in {"crossing", "meeting"}:
        walks = _pair(kind == "crossing", rng)
    elif kind == "pillar":
        walks, pillar = [_drift_far(rng)], (265, 375)
    elif kind == "empty":
        walks = [_passing(place, rng) for place in range(max(1, math.ceil((seconds - 1) / 5)))]
    else:
        raise ValueError(f"There is no scene {kind!r}; there are {', '.join(KINDS)}.")
    actors = []
    for place, walk in enumerate(walks):
        first = looks[place % len(looks)]
        shown, changes = [first], []
        if kind == "changing":
            others = [one for one in looks if one is not first]
            moment = rng.uniform(1.2, 1.6) + 0.3 * place
            while moment < seconds - 1.0:
                shown.append(_most_alike(shown[-1], others))
                changes.append(round(moment * FPS))
                moment += rng.uniform(1.2, 2.0)
        actors.append(Actor(tuple(shown), walk, tuple(changes)))
    return Scene(kind, frames, tuple(actors), seed, pillar)


def drawn_look(seed: int, expression: Expression = Expression.NEUTRAL, light: float = 1.0) -> Look:
    """A drawn face that the default detector finds, framed as FER2013's are."""
    import cv2

    from fer.dataset.scenes import draw_scene

    picture, ((left, top, right, bottom),) = draw_scene(
        [expression], np.random.default_rng(seed), 200, 220
    )
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    side = round((right - left) / _FRAMED)
    x, y = (left + right) / 2, (top + bottom) / 2 - _LOWER * side
    x0, y0 = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    cut = grey[y0 : y0 + side, x0 : x0 + side]
    return Look(np.clip(cut * light, 0, 255).astype(np.uint8), int(expression))


def _shown(actor: Actor, number: int) -> NDArray[np.float32]:
    """What the face looks like: one picture, or two of them while it changes."""
    import cv2

    pixels = actor.looks[0].pixels.astype(np.float32)
    for look, change in zip(actor.looks[1:], actor.changes, strict=True):
        # At the frame of the change the new face has more than half of the weight.
        weight = min(1.0, max(0.0, (number - change + 2) / (_FADE + 0.5)))
        if weight > 0:
            new = cv2.resize(look.pixels, pixels.shape[::-1]).astype(np.float32)
            pixels = pixels + weight * (new - pixels)
    return pixels


def _paste(
    picture: NDArray[np.float32], pixels: NDArray[Any], x: float, y: float, side: float
) -> None:
    """Put a square centred on (x, y) into the picture, its rim blended, in place."""
    import cv2

    size = pixels.shape[0]
    rim = round(size * _RIM)
    wide = cv2.copyMakeBorder(pixels.astype(np.float32), rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    outer = size + 2 * rim
    edge = np.minimum(np.arange(outer) + 0.5, outer - np.arange(outer) - 0.5) / rim
    mask = np.clip(np.minimum.outer(edge, edge), 0, 1).astype(np.float32)
    scale = side / size
    reach = outer * scale / 2
    left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    right, bottom = min(WIDTH, math.ceil(x + reach)), min(HEIGHT, math.ceil(y + reach))
    if right <= left or bottom <= top:
        return
    # To fractions of a pixel: a motion in whole ones would shake.
    half = 0.5 * (scale - 1)
    turn = np.array([[scale, 0, x - reach + half - left], [0, scale, y - reach + half - top]])
    shape = (right - left, bottom - top)
    face = cv2.warpAffine(wide, turn, shape, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(mask, turn, shape, flags=cv2.INTER_LINEAR)
    part = picture[top:bottom, left:right]
    part += alpha * (face - part)


def _drift(place: int, persons: int, rng: np.random.Generator) -> Walk:
    """To and fro within a column of the picture."""
    column = WIDTH / persons
    side = min(rng.uniform(110, 150), column / (1 + 2 * _RIM) * 0.95)
    room_x, room_y = (column - side) / 2, (HEIGHT - side * (1 + _RIM)) / 2
    across, down = min(room_x * 0.5, 90.0), min(room_y * 0.5, 70.0)
    pace, phase = rng.uniform(0.5, 0.9, 3), rng.uniform(0, 2 * math.pi, 3)

    def walk(time: float) -> tuple[float, float, float]:
        x, y, zoom = np.sin(time * pace + phase)
        middle = column * (place + 0.5)
        size = side * (1 + 0.08 * float(zoom))
        return middle + across * float(x), HEIGHT / 2 + down * float(y), size

    return walk


def _pair(crossing: bool, rng: np.random.Generator) -> list[Walk]:
    """Two who walk towards each other: past one another, or back."""
    period, side = rng.uniform(6.5, 9.0), rng.uniform(110, 140)
    lift = rng.uniform(-0.2, 0.2) * side
    high = rng.uniform(0.42, 0.58) * HEIGHT

    def walk_of(sign: float) -> Walk:
        own = side * (1.0 if sign < 0 else rng.uniform(0.9, 1.1))

        def walk(time: float) -> tuple[float, float, float]:
            if crossing:
                away = 205 * math.cos(2 * math.pi * time / period)
            else:  # so near that half of the one behind is hidden, and back at once
                swing = math.hypot(math.cos(math.pi * time / period), 0.1)
                away = side * 0.3 + (205 - side * 0.3) * swing
            return WIDTH / 2 + sign * away, high + sign * lift / 2, own

        return walk

    return [walk_of(-1.0), walk_of(1.0)]


def _drift_far(rng: np.random.Generator) -> Walk:
    """To and fro across the whole picture."""
    period, side = rng.uniform(6.5, 8.0), rng.uniform(105, 125)
    high = rng.uniform(0.42, 0.58) * HEIGHT

    def walk(time: float) -> tuple[float, float, float]:
        return WIDTH / 2 - 225 * math.cos(2 * math.pi * time / period), high, side

    return walk


def _passing(place: int, rng: np.random.Generator) -> Walk:
    """In at one edge and out at the other within 3 s, from second 1 + 5 x `place` on."""
    side, high = rng.uniform(110, 140), rng.uniform(0.42, 0.58) * HEIGHT
    leftwards = bool(rng.integers(2))
    far = side * (0.5 + _RIM)

    def walk(time: float) -> tuple[float, float, float] | None:
        share = (time - 1 - 5 * place) / 3
        if not 0 < share < 1:
            return None
        x = -far + (WIDTH + 2 * far) * share
        return WIDTH - x if leftwards else x, high, side

    return walk


def _most_alike(look: Look, others: Sequence[Look]) -> Look:
    """Of the pictures with another expression, the one that correlates most."""
    from fer.faces.cuts import correlation

    fitting = [one for one in others if one.expression != look.expression]
    return max(fitting, key=lambda one: correlation(_small(one.pixels), _small(look.pixels)))


def _small(pixels: Pixels) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.resize(pixels, (24, 24), interpolation=cv2.INTER_AREA), np.float32)


def _framed(x: float, y: float, side: float) -> Box:
    return _around(x, y + _LOWER * side, side, _FRAMED)


def _around(x: float, y: float, side: float, times: float) -> Box:
    half = side * times / 2
    return (x - half, y - half, x + half, y + half)


def _visible(box: Box, in_front: Sequence[tuple[float, float, float, float]]) -> float:
    """Share of a box inside the picture and behind nothing, sampled at 400 points."""
    steps = (np.arange(20) + 0.5) / 20
    columns, rows = np.meshgrid(
        box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])
    )
    seen = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    for left, top, right, bottom in in_front:
        seen &= ~((columns >= left) & (columns < right) & (rows >= top) & (rows < bottom))
    return float(seen.mean())
