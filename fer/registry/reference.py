"""How a model is named: `name`, `name@alias`, `name:7`, or the path of a package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer.errors import ModelReferenceError
from fer.registry.manifest import MAX_NAME, NAME_PATTERN

DEFAULT_ALIAS: Final = "champion"
LATEST: Final = "latest"
"""Alias that always means the highest version; computed, so it cannot be moved."""
PREVIOUS: Final = "previous"
"""Alias that means the champion's predecessor; computed, so it cannot be moved."""

_NAME = re.compile(NAME_PATTERN)
_ALIAS = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+)*")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_FORMS = "Write name, name@alias, name:7, or the path of a package (./folder)."


@dataclass(frozen=True)
class ModelReference:
    """A parsed reference: a path, or a name with either an alias or a version number."""

    name: str = ""
    alias: str | None = None
    number: int | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str | Path) -> ModelReference:
        """Parse a reference; `name` alone means `name@champion`.

        A text with a slash, or that starts with `.` or `~`, is a path; so is a `Path`.

        Raises:
            ModelReferenceError: it has none of the four forms; the message says why.
        """
        if isinstance(text, Path):
            return cls(path=_expanded(text))
        if not text or not text.strip() or "\x00" in text:
            raise ModelReferenceError(f"A model reference cannot be empty. {_FORMS}")
        if "://" in text:
            raise ModelReferenceError(
                f"{text!r} is a URL. Give the registry with --registry or FER_REGISTRY, and name "
                "the model in it."
            )
        if "/" in text or "\\" in text or text.startswith((".", "~")):
            return cls(path=_expanded(Path(text)))
        mark = "@" if "@" in text else ":"
        name, found, rest = text.partition(mark)
        check_name(name)
        if found == ":":
            if not _NUMBER.fullmatch(rest):
                raise ModelReferenceError(
                    f"{text!r}: after the colon comes a version number from 1. {_FORMS}"
                )
            return cls(name=name, number=int(rest))
        alias = rest if found else DEFAULT_ALIAS
        check_alias(alias)
        return cls(name=name, alias=alias)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        if self.number is not None:
            return f"{self.name}:{self.number}"
        return f"{self.name}@{self.alias}"


def check_name(name: str) -> str:
    """Return `name` where it can name a model.

    Raises:
        ModelReferenceError: other characters than a key of an object store may safely have.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ModelReferenceError(
            f"{name!r} cannot name a model: use up to 100 lower-case letters, digits and ._-, "
            f"starting with a letter or digit. {_FORMS}"
        )
    return name


def check_alias(alias: str, *, movable: bool = False) -> str:
    """Return `alias` where it can be one; with `movable`, one that can be set.

    Raises:
        ModelReferenceError: odd characters, or a computed alias that is to be moved.
    """
    if len(alias) > MAX_NAME or not _ALIAS.fullmatch(alias):
        raise ModelReferenceError(
            f"{alias!r} cannot be an alias: use lower-case letters, digits and ._-, starting with "
            f"a letter. {_FORMS}"
        )
    if movable and alias in {LATEST, PREVIOUS}:
        raise ModelReferenceError(
            f"The alias {alias!r} follows by itself and cannot be set. Choose another, such as "
            f"{DEFAULT_ALIAS} or challenger."
        )
    return alias


def _expanded(path: Path) -> Path:
    """The path with `~` and `~name` resolved; of somebody without a home it stays as it is."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
