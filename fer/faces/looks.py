"""Which frames of a video are searched for faces, and how closely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer.faces.detector import Detector, make_detector
from fer.faces.dlib_detector import DlibHogDetector

if TYPE_CHECKING:
    from fer.params import FacesParams, VideoParams

State = tuple[float | None, float | None]

_SURELY = 1.25  # times the smallest face: from this size on a search seldom misses one
_SOON = 1e-6  # s


class Looks:
    """Says for each frame whether to search it, by its time alone and never by the clock.

    Small faces are found in an enlarged frame, which takes four times as long as the frame as it
    is. So a detector that enlarges does that every `small_interval`; every `detect_interval` the
    frame is searched at half the size, for faces that are twice as large.

    Args:
        params: the intervals, and `max_side`.
        faces: the detector.
    """

    def __init__(self, params: VideoParams, faces: FacesParams) -> None:
        self.params = params
        side = min(faces.max_side, params.max_side)
        self.close: Detector = make_detector(faces.model_copy(update={"max_side": side}))
        """Searches for all faces."""
        self.quick: Detector = self.close
        """Searches for faces of twice the size; where the detector enlarges nothing, for all."""
        if isinstance(self.close, DlibHogDetector) and self.close.upsample:
            self.quick = self.close.halved()
        self._looked: float | None = None
        self._closely: float | None = None

    @property
    def state(self) -> State:
        """When a frame was last searched, and when closely, s."""
        return self._looked, self._closely

    def resume(self, state: State) -> None:
        """Go on from a `state`."""
        self._looked, self._closely = state

    def due(self, time: float, *, anew: bool = False) -> Detector | None:
        """What searches this frame; None where it is left to optical flow.

        Args:
            time: of the frame, s.
            anew: nothing is known of who is there, as after a cut: search it, and closely.
        """
        if not anew and not _is_over(self._looked, self.params.detect_interval, time):
            return None
        self._looked = time
        if not anew and not _is_over(self._closely, self.params.small_interval, time):
            return self.quick
        self._closely = time
        return self.close

    def carried(self, size: float, frame_side: int) -> float:
        """How long a face may go undetected and still be followed, s.

        Args:
            size: longer side of its box, px of the frame.
            frame_side: longer side of the frame, px.
        """
        longest = self.params.max_carried
        enlarged = max(1.0, frame_side / self.quick.max_side)
        if self.quick is self.close or size >= self.quick.smallest_face * enlarged * _SURELY:
            return longest
        # It is looked for less often, and may be missed once.
        return max(longest, 2 * self.params.small_interval)


def _is_over(last: float | None, interval: float, time: float) -> bool:
    return last is None or time - last >= interval - _SOON
