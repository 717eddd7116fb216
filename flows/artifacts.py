"""What a run shows in the Prefect UI: pictures, tables, links."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.redaction import redactor

# The server keeps artifacts in its database; a larger picture is linked instead.
_LARGEST_IMAGE = 2 << 20
_ROWS = 200


def image(key: str, path: Path, description: str) -> None:
    """Show a PNG inside the run, or a link where it is too large to store; nothing if absent."""
    if not path.is_file():
        return
    data = path.read_bytes()
    if len(data) > _LARGEST_IMAGE:
        link(key, path, description)
        return
    uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    create_image_artifact(image_url=uri, key=key, description=redactor()(description))


def link(key: str, path: Path, description: str) -> None:
    """Link a file of the machine that ran the flow; nothing if it is absent."""
    if path.exists():
        create_link_artifact(
            link=path.resolve().as_uri(),
            link_text=path.name,
            key=key,
            description=redactor()(description),
        )


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show rows; of a long table its first 200, and the description says so."""
    if len(rows) > _ROWS:
        description += f" The first {_ROWS} of {len(rows)}."
    clean = redactor()
    shown = [{name: clean(str(value)) for name, value in row.items()} for row in list(rows)[:_ROWS]]
    create_table_artifact(table=shown, key=key, description=clean(description))


def markdown(key: str, text: str, description: str) -> None:
    """Show Markdown."""
    clean = redactor()
    create_markdown_artifact(markdown=clean(text), key=key, description=clean(description))


def figures(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The single values of a nested document as (dotted name, text), numbers to four digits."""
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            rows += figures(value, path + ".")
        elif isinstance(value, float):
            rows.append((path, f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"))
        elif isinstance(value, str | int) or value is None:
            rows.append((path, "-" if value is None else str(value)))
        # An interval or a size; longer ones are curves.
        elif len(value) <= 4 and all(isinstance(v, int | float) for v in value):
            rows.append((path, " to ".join(f"{v:.4g}" for v in value)))
    return rows


def markdown_table(rows: Sequence[tuple[str, str]], heads: tuple[str, str] = ("", "")) -> str:
    """Two columns as a Markdown table."""
    lines = [f"| {heads[0]} | {heads[1]} |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(text)} |" for name, text in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
