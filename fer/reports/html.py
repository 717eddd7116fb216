"""Self-contained HTML: one file, images inside it, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment

_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Fact:
    """A headline figure: a large value, what it is, and a line that explains it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under column heads; a cell that is a number is set to the right.

    A cell may be a `Bar`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Bar:
    """A table cell drawn as a bar: `share` 0 to 1 of the full width, with a text beside it."""

    share: float
    text: str
    colour: str = "#2f6690"


@dataclass(frozen=True)
class Image:
    """A picture file that goes into the page; `alt` says what it shows."""

    path: Path
    alt: str
    caption: str = ""

    def uri(self) -> str:
        """The file as a data URI.

        Raises:
            UsageError: absent, or not a picture that browsers show.
        """
        media = _TYPES.get(self.path.suffix.lower())
        if media is None:
            raise UsageError(
                f"{self.path} is no picture a page can show; use {', '.join(sorted(_TYPES))}."
            )
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be put into the page: {error.strerror}. "
                "Run the step that makes it first."
            ) from None
        return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or anywhere."""

    text: str
    address: str


@dataclass(frozen=True)
class Section:
    """A titled part of a page; whatever is given is shown in this order.

    `text` is plain: an empty line separates paragraphs. `open` False folds the section away.
    """

    title: str
    text: str = ""
    facts: Sequence[Fact] = ()
    table: Table | None = None
    images: Sequence[Image] = ()
    links: Sequence[Link] = ()
    open: bool = True


def render(template: str, **values: Any) -> str:
    """A template of `fer/reports/templates`, filled in. HTML is escaped, Markdown is not."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["paragraphs"] = _paragraphs
    environment.filters["percent"] = percent
    environment.tests["bar"] = lambda value: isinstance(value, Bar)
    environment.tests["figure"] = lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool)
    )
    environment.filters["shown"] = _shown
    return environment


def percent(share: float, digits: int = 1) -> str:
    """0.6543 as '65.4 %'; the space does not break."""
    return f"{share * 100:.{digits}f}\u00a0%"


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
