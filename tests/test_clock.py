"""Times as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.clock import clock, read_clock
from fer.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("2:00:00", 7200), ("0", 0), (" 5.25 ", 5.25)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert read_clock(text, "start") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:60", "1:2:3:4", "nan", "inf", "1:-5", "1:"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="line 3: start is '") as caught:
        read_clock(text, "line 3: start")
    assert "Write seconds, 1:30 or 0:01:30.5." in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (3599.97, "1:00:00.0"), (5025.44, "1:23:45.4")],
)
def test_times_are_written(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@given(st.floats(0, 1e5))
def test_what_is_written_is_read_again(seconds: float) -> None:
    assert read_clock(clock(seconds), "time") == pytest.approx(seconds, abs=0.0501)
