"""Which face of a frame is which face of the frame before: stable numbers for persons.

A detection is expensive, so it need not run on every frame: between two of them optical flow
carries the boxes (`fer.faces.flow`). On a frame with detections, faces and tracks are matched by
least total cost of place, size and look (H. W. Kuhn's assignment problem, by scipy). A face that
is hidden is expected where it was heading, at constant velocity, and keeps its number if it is
back in time. A scene cut ends every track.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.faces.crop import crop_face
from fer.faces.cuts import correlation
from fer.faces.detector import Detection, Image
from fer.faces.flow import Moment, carry

if TYPE_CHECKING:
    from fer.faces.looks import Looks
    from fer.params import VideoParams

Look = NDArray[np.float64]
"""A face's small square (256,), of mean 0 and length 1."""

_LOOK = 16  # px, side of the small square by which a face is known again
_REACH = 0.7  # of a face's size: how far a visible face may be from where it is expected
_REACH_PER_SECOND = 1.0  # more for each second hidden, up to
_MOST_REACH = 1.6
_MOST_GROWTH = math.log(1.7)  # between two sizes of one face
_ALIKE = 0.35  # correlation of looks that a face coming back must reach
_STRAYED = 0.1  # below this a carried box no longer shows the face
_STILL_THERE = 0.6  # that a box must reach to stay where it is when flow is lost
_MOST_ZOOM = math.log(1.3)  # between a carried box and its last detection: more is no face's
_SAME_FACE = 0.5  # overlap above which a carried box and a detection agree
_SAME_PLACE = 0.35  # overlap above which two boxes hide one another
_FORGET = 0.3  # share of the newest detection in a track's look
_TRUST = 0.5  # share of a detection in the box of a face that was carried to the same place
_COAST = 1.0  # s that a hidden face is taken to move on
_UNSEEN = 0.3  # cost of taking a face for one that was hidden rather than one that was followed


@dataclass(frozen=True)
class Tracked:
    """One face of one frame.

    Attributes:
        track: the person's number in this video, from 0.
        box: in pixels of the frame; its score is that of the latest detection.
        detected: False where the box was carried from an earlier frame.
    """

    track: int
    box: Detection
    detected: bool


@dataclass
class _Track:
    number: int
    box: Detection
    seen: float  # when the detector last found it, s
    look: Look
    velocity: tuple[float, float] = (0.0, 0.0)  # px/s, from detection to detection
    visible: bool = True
    found: Detection = field(default_factory=lambda: Detection(0, 0, 0, 0, 0))  # the last one

    def expected(self, time: float) -> Detection:
        """Where the face should be: carried while visible, else moving on."""
        if self.visible:
            return self.box
        ahead = min(time - self.seen, _COAST)
        return _shifted(self.found, self.velocity[0] * ahead, self.velocity[1] * ahead)


class Tracker:
    """Follows faces from frame to frame; one per video.

    Args:
        params: `max_carried` and `max_missing` matter here; None is the defaults.
        looks: how often faces are looked for, where that depends on their size.

    Example:
        >>> import numpy as np
        >>> tracker = Tracker()
        >>> frame = np.zeros((120, 160), np.uint8)
        >>> [face.track for face in tracker.update(frame, 0.0, [Detection(20, 20, 60, 60, 1.0)])]
        [0]
    """

    def __init__(self, params: VideoParams | None = None, looks: Looks | None = None) -> None:
        if params is None:
            from fer.params import VideoParams

            params = VideoParams()
        self.params, self.looks = params, looks
        self.moment: Moment | None = None
        """The latest frame; give it to `update` with detections that were made on it."""
        self._tracks: list[_Track] = []
        self._next = 0

    def update(
        self,
        grey: Image,
        time: float,
        detections: Sequence[Detection] | None,
        *,
        cut: bool = False,
        fresh: bool = False,
        detected_on: Moment | None = None,
    ) -> list[Tracked]:
        """Take the next frame.

        Args:
            grey: uint8 (h, w).
            time: of the frame, s; must not go back.
            detections: faces the detector found; None where it did not look at this frame.
            cut: the frame begins another scene, so every track ends.
            fresh: use nothing of the frame before but the tracks: where a run begins or goes on.
            detected_on: the earlier frame that `detections` belong to, where detection takes
                longer than a frame; they are carried to this one first.

        Returns:
            The faces of this frame, by number.
        """
        before = None if fresh or cut else self.moment
        self.moment = now = Moment.of(grey, time)
        limit = -1.0 if cut else self.params.max_missing
        self._tracks = [one for one in self._tracks if time - one.seen <= limit + 1e-9]
        self._carry(before, now)
        found: set[int] = set()
        if detections is not None:
            if detected_on is not None:
                carried = carry(detected_on, now, detections)
                detections = [one for one in carried if one is not None]
            found = self._assign(list(detections), now)
        for track in self._tracks:
            if time - track.seen > self._carried(track, grey) + 1e-9:
                track.visible = False
        return [
            Tracked(track.number, track.box, track.number in found)
            for track in self._tracks
            if track.visible
        ]

    def state(self) -> dict[str, Any]:
        """All that a tracker which goes on needs to know, as a JSON object."""
        tracks = [asdict(track) | {"look": track.look.tolist()} for track in self._tracks]
        return {"next": self._next, "tracks": tracks}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`; the next `update` must be `fresh`."""
        self._next = state["next"]
        self._tracks = [
            _Track(
                **one
                | {
                    "box": Detection(**one["box"]),
                    "found": Detection(**one["found"]),
                    "look": np.array(one["look"], np.float64),
                    "velocity": (one["velocity"][0], one["velocity"][1]),
                }
            )
            for one in state["tracks"]
        ]
        self.moment = None

    def _carried(self, track: _Track, grey: Image) -> float:
        if self.looks is None:
            return self.params.max_carried
        return self.looks.carried(_size(track.found), max(grey.shape))

    def _carry(self, before: Moment | None, now: Moment) -> None:
        """Move visible boxes with the picture; a box that cannot be followed is hidden."""
        shown = [track for track in self._tracks if track.visible]
        if before is None:
            return  # nothing to follow from: in one frame's time a face is still near
        boxes = carry(before, now, [track.box for track in shown])
        for track, box in zip(shown, boxes, strict=True):
            # Flow is lost in a flash, too. In one frame's time a face hardly moves: where it was
            # there may still be one that looks like it.
            least = _STRAYED if box else _STILL_THERE
            box = box or track.box
            grown = abs(math.log(_size(box) / _size(track.found)))
            follows = _inside(box, now) and grown <= _MOST_ZOOM
            if follows and correlation(track.look, _look(box, now)) >= least:
                track.box = box
            else:
                track.visible = False

    def _assign(self, detections: list[Detection], now: Moment) -> set[int]:
        """Match detections with tracks, begin new tracks; the numbers that were detected."""
        looks = [_look(one, now) for one in detections]
        pairs = self._pairs(detections, looks, now.time)
        for row, column in pairs:
            _hit(self._tracks[row], detections[column], looks[column], now.time)
        matched = {row for row, _ in pairs}
        taken = {column for _, column in pairs}
        found = {self._tracks[row].number for row in matched}
        for row, track in enumerate(self._tracks):
            # A box that has slid onto another person's face follows that person.
            if row not in matched and any(
                _overlap(track.box, self._tracks[other].box) > _SAME_PLACE for other in matched
            ):
                track.visible = False
        for column, one in enumerate(detections):
            if column not in taken:
                self._tracks.append(_Track(self._next, one, now.time, looks[column], found=one))
                found.add(self._next)
                self._next += 1
        return found

    def _pairs(
        self, detections: list[Detection], looks: list[Look], time: float
    ) -> list[tuple[int, int]]:
        if not self._tracks or not detections:
            return []
        from scipy.optimize import linear_sum_assignment

        never = 1e6
        costs = np.full((len(self._tracks), len(detections)), never)
        for row, track in enumerate(self._tracks):
            expected = track.expected(time)
            hidden = 0.0 if track.visible else time - track.seen
            reach = min(_REACH + _REACH_PER_SECOND * hidden, _MOST_REACH)
            for column, one in enumerate(detections):
                size = (_size(one) + _size(expected)) / 2
                away = math.dist(_centre(one), _centre(expected)) / size
                growth = abs(math.log(_size(one) / _size(expected)))
                alike = correlation(track.look, looks[column])
                if away > reach or growth > _MOST_GROWTH or (away > _REACH and alike < _ALIKE):
                    continue
                unseen = 0.0 if track.visible else _UNSEEN
                costs[row, column] = away + 0.5 * growth + (1.0 - alike) + unseen
        rows, columns = linear_sum_assignment(costs)
        return [
            (int(row), int(column))
            for row, column in zip(rows, columns, strict=True)
            if costs[row, column] < never
        ]


def _hit(track: _Track, box: Detection, look: Look, time: float) -> None:
    """The detector found this person again."""
    passed = time - track.seen
    if passed > 0:
        (x, y), (x0, y0) = _centre(box), _centre(track.found)
        # Half old, half new: the detector's boxes jump by some pixels.
        track.velocity = (
            (track.velocity[0] + (x - x0) / passed) / 2,
            (track.velocity[1] + (y - y0) / passed) / 2,
        )
    track.look = (1 - _FORGET) * track.look + _FORGET * look
    # A detector's sizes come in steps, and the classifier sees each step; the mean of several
    # detections, carried to this frame, is steadier than the last one.
    same = track.visible and _overlap(track.box, box) > _SAME_FACE
    track.box = _mixed(track.box, box, _TRUST) if same else box
    track.found = box
    track.seen, track.visible = time, True


def _look(box: Detection, now: Moment) -> Look:
    square = crop_face(now.small, box.scaled(1 / now.reduction), 0.0, _LOOK).ravel()
    look = square - square.mean()
    # Four digits are plenty, and a state that is written down stays small.
    return np.asarray(np.round(look / (float(np.linalg.norm(look)) or 1.0), 4), np.float64)


def _inside(box: Detection, now: Moment) -> bool:
    """Whether the middle of the box is in the picture."""
    height, width = now.small.shape[:2]
    x, y = _centre(box.scaled(1 / now.reduction))
    return bool(0 <= x < width and 0 <= y < height)


def _centre(box: Detection) -> tuple[float, float]:
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def _size(box: Detection) -> float:
    return max(box.width, box.height, 1e-6)


def _shifted(box: Detection, across: float, down: float) -> Detection:
    return Detection(
        box.left + across, box.top + down, box.right + across, box.bottom + down, box.score
    )


def _mixed(old: Detection, new: Detection, share: float) -> Detection:
    """Between two boxes; the score is the new one's."""
    kept = 1 - share
    return Detection(
        kept * old.left + share * new.left,
        kept * old.top + share * new.top,
        kept * old.right + share * new.right,
        kept * old.bottom + share * new.bottom,
        new.score,
    )


def _overlap(one: Detection, other: Detection) -> float:
    """Intersection over union."""
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (one.width * one.height + other.width * other.height - both)
