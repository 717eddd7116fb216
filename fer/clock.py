"""Times of a video as people read and write them: 90, 1:30, 0:01:30.5."""

from __future__ import annotations

from fer.errors import UsageError


def read_clock(text: str, what: str) -> float:
    """Seconds from `90`, `1:30` or `0:01:30.5`.

    Args:
        text: what was written.
        what: its name in the message of an error: an option, or a column with its line.

    Raises:
        UsageError: it is no such time, negative, or not finite.

    Example:
        >>> read_clock("0:01:30.5", "--start")
        90.5
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    in_range = all(0 <= part < 60 for part in parts[1:])
    if not 1 <= len(parts) <= 3 or not in_range or not 0 <= parts[0] < float("inf"):
        raise UsageError(f"{what} is {text!r}. Write seconds, 1:30 or 0:01:30.5.")
    return sum(part * 60.0**place for place, part in enumerate(reversed(parts)))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss.t, to the nearest tenth.

    Example:
        >>> clock(3599.97)
        '1:00:00.0'
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}.{rest % 10}"
