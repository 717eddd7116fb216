"""What a check finds, and how one is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fer.errors import FerError

Status = Literal["ok", "skipped", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        name: what was looked at.
        status: `failed` where work will fail, `warning` where it may, `skipped` where it is not
            set up here.
        text: what was found.
        advice: what to do; empty where nothing is.
    """

    name: str
    status: Status
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Something to look at; it may find several things."""

    name: str
    look: Callable[[], list[Finding]]

    def run(self) -> list[Finding]:
        """The findings; an error is one of them, so that the other checks go on."""
        try:
            return self.look()
        except FerError as error:
            text, _, advice = str(error).partition(". ")
            return [Finding(self.name, "failed", text, advice)]
        # A check goes through libraries and services that may fail in any way.
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return [Finding(self.name, "failed", text, "Run again; if it stays, report it.")]
