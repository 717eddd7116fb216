"""A bar on a terminal, and silence elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from fer.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_said_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Working") as progress:
        progress.update(1, 2)
        progress.start("Working on")
        progress.update(2, 0)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


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
