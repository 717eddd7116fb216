"""A bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import io
import sys

import pytest

from fer.progress import LINE_SECONDS, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quick_work_says_nothing_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Working") as progress:
        progress.update(1, 2)
        progress.start("Working on")
        progress.update(2, 0)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_long_work_says_now_and_then_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with Progress("Working", now=lambda: now) as progress:
        for done in range(1001, 1200):  # goes on from 1,000: those took no time of this run
            progress.update(done, 4001)
            now += 1.0
        progress.start("p2.mp4")
        for done in range(1, 60):
            progress.update(done, 0)
            now += 1.0
        progress.update(1, 100)  # a second look at the same file
        now += LINE_SECONDS
        progress.update(2, 100)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0] == "Working: 1,031 of 4,001 (26%), 0:49:30 left"
    assert lines[1] == "Working: 1,061 of 4,001 (27%), 0:49:00 left"
    assert lines[6:8] == ["p2.mp4: 12", "p2.mp4: 42"]
    assert lines[8:] == ["p2.mp4: 2 of 100 (2%), 0:49:00 left"]


def test_a_terminal_sees_title_count_and_the_next_part(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("Downloading") as progress:
        progress.update(7, 9)
        progress._bars.refresh()  # type: ignore[union-attr]
        assert "Downloading" in terminal.getvalue()
        assert "7/9" in terminal.getvalue()
        progress.start("Reading")
        progress.update(3, 0)
    assert "Reading" in terminal.getvalue()
    assert "3/?" in terminal.getvalue()


def test_an_error_passes_and_the_bar_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ValueError, match="ours"), Progress("Working"):
        raise ValueError("ours")
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1
