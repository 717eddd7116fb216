"""What the commands of `fer models` share: options, and how things are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fer.registry import Alias, Registry

RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", "-r", help="A folder or s3://bucket/prefix; FER_REGISTRY where not given."
    ),
]
Reference = Annotated[str, typer.Argument(help="name, name@alias or name:7.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]
AliasOption = Annotated[str, typer.Option("--alias", "-a", help="The alias that moves.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the event log.")]
ProgressFlag = Annotated[bool, typer.Option("--progress", help="Show a bar in any case.")]
TrustedOption = Annotated[
    list[Path] | None,
    typer.Option("--trusted", help="A public key that must have signed it; FER_TRUSTED_KEYS."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Whatever the gate said; the event log says so for ever.")
]


def open_registry(url: str | None) -> Registry:
    """The registry of --registry or FER_REGISTRY."""
    from fer.registry import Registry

    return Registry.open(url)


def aliases_of(number: int, aliases: dict[str, Alias]) -> list[str]:
    """Names of the aliases that point at a version."""
    return [alias for alias, found in aliases.items() if found.number == number]


def alias_document(alias: Alias) -> dict[str, Any]:
    """An alias as JSON."""
    from dataclasses import asdict

    document = asdict(alias)
    document["version"] = document.pop("number")
    return document


def alias_text(alias: Alias) -> str:
    """An alias for people."""
    before = f" (before: version {alias.previous})" if alias.previous else ""
    forced = ", in spite of the gate" if alias.forced else ""
    return f"{alias.name}@{alias.alias} is now [bold]version {alias.number}[/bold]{forced}{before}."


def value_text(value: Any) -> str:
    """A JSON value in short."""
    import json

    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def gate_lines(gate: dict[str, Any]) -> list[str]:
    """A gate decision: its verdict, and a line for each check."""
    against = gate.get("champion")
    lines = [
        ("passed" if gate.get("passed") else "[red]not passed[/red]")
        + (f" against version {against}" if against else "")
    ]
    checks = gate.get("checks")
    for check in checks if isinstance(checks, list) else []:
        if isinstance(check, dict):
            mark = "[green]ok[/green] " if check.get("passed") else "[red]NO[/red] "
            lines.append(f"  {mark} {plain(str(check.get('text', '')))}")
    unchecked = gate.get("unchecked")
    if isinstance(unchecked, list):
        lines += [f"  ?   {plain(str(limit))} was not checked" for limit in unchecked]
    if not checks:
        lines.append(f"  {plain(value_text(gate))}")
    return lines


def size_text(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def plain(text: str) -> str:
    """Text from a package, so that none of it is taken for markup or steers the terminal."""
    from rich.markup import escape

    return escape("".join(sign if sign.isprintable() else " " for sign in text))


def is_path(reference: str) -> bool:
    """Whether a reference names a package's folder."""
    from fer.registry.reference import ModelReference

    return ModelReference.parse(reference).path is not None
