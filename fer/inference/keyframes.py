"""Which faces of a video the classifier sees: key frames of each person, and those in between.

An expression lasts, and the classifier is the dearest stage, so a person's face is classified
every so many seconds. Between two such faces probabilities are interpolated by time. Whoever comes,
goes or is lost is classified in the first and in the last frame, so nothing is carried beyond what
was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fer.faces.finder import FoundFace

Scores = NDArray[np.float32]

_SOON = 1e-6  # s


@dataclass(eq=False)
class Sighting:
    """One face in one frame, on its way to its probabilities.

    Attributes:
        track: the person's number.
        time: of the frame, s.
        detected: False where the box was carried from an earlier frame.
        face: box, quality and crop.
        scores: float32 (7,), once the classifier has seen it.
        before: the key frame that it follows, where it is none itself.
        after: the next one, once that is known.
    """

    track: int
    time: float
    detected: bool
    face: FoundFace
    scores: Scores | None = None
    before: Sighting | None = None
    after: Sighting | None = None

    @property
    def known(self) -> bool:
        """Whether there are probabilities."""
        return self.scores is not None or (self.after is not None and self.after.known)

    @property
    def probabilities(self) -> Scores:
        """Its own scores, or what lies between those before and after; float32 (7,).

        Raises:
            ValueError: they are not known yet.
        """
        if self.scores is not None:
            return self.scores
        before, after = self.before, self.after
        if before is None or before.scores is None or after is None or after.scores is None:
            raise ValueError("not classified yet")
        share = np.float32((self.time - before.time) / (after.time - before.time))
        return (1 - share) * before.scores + share * after.scores


class Keyframes:
    """Chooses key frames by the times of the frames alone, so the same video has the same ones.

    Args:
        interval: between a person's key frames, s; 0: every frame is one.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._keys: dict[int, Sighting] = {}
        self._between: dict[int, list[Sighting]] = {}  # after the last key frame

    def update(self, sightings: Iterable[Sighting]) -> list[Sighting]:
        """Take all faces of the next frame; the faces to classify, of earlier frames perhaps."""
        faces = list(sightings)
        chosen = self._end(self._keys.keys() - {one.track for one in faces})
        for one in faces:
            key = self._keys.get(one.track)
            if key is None or one.time - key.time >= self.interval - _SOON:
                self._is_key(one)
                chosen.append(one)
            else:
                one.before = key
                self._between.setdefault(one.track, []).append(one)
        return chosen

    def close(self) -> list[Sighting]:
        """End everybody's stretch; the faces to classify. What follows begins anew."""
        return self._end(self._keys.keys())

    def _end(self, tracks: Iterable[int]) -> list[Sighting]:
        last = []
        for track in sorted(tracks):
            if waiting := self._between.get(track):
                last.append(waiting.pop())
                self._is_key(last[-1])
            del self._keys[track]
        return last

    def _is_key(self, one: Sighting) -> None:
        for other in self._between.pop(one.track, ()):
            other.after = one
        self._keys[one.track] = one


class Turns:
    """Chooses whom to classify in live video, where no frame to come is known.

    Whoever has just come is classified at once; the others every so many seconds, in turns, so
    that no frame waits for all of them.

    Args:
        interval: between two looks at one person, s; 0: everybody in every frame.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._seen: dict[int, float] = {}
        self._before: float | None = None

    def choose(self, time: float, tracks: Sequence[int]) -> list[int]:
        """Whom to classify of those in the next frame, by number and in the order of `tracks`.

        Args:
            time: of the frame, s; must not go back.
            tracks: everybody in it. Who is not there is forgotten.
        """
        passed = self.interval if self._before is None else time - self._before
        self._before = time
        self._seen = {track: self._seen[track] for track in tracks if track in self._seen}
        waiting = sorted(
            (seen, track)
            for track, seen in self._seen.items()
            if time - seen >= self.interval - _SOON
        )
        share = len(tracks) * passed / self.interval if self.interval else len(tracks)
        most = max(1, math.ceil(share - _SOON))
        turn = {track for _, track in waiting[:most]}
        chosen = [one for one in tracks if one in turn or one not in self._seen]
        self._seen |= dict.fromkeys(chosen, time)
        return chosen
