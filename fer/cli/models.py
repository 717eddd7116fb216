"""`fer models`: the registry on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer.cli.console import JsonFlag, emit, note

if TYPE_CHECKING:
    from fer.registry import Alias, Registry, Version

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Register, promote and pull models. Example: fer models list --registry ./registry",
)

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


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Show this model's versions.")] = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the models, or the versions of one. Example: fer models list fer2013-efficientnetb2"""
    opened = _open(registry)
    if name is None:
        models = []
        for model in opened.models():
            newest = opened.resolve(f"{model}@latest")
            aliases = opened.aliases(model)
            models.append(
                {
                    "name": model,
                    "latest": newest.number,
                    "aliases": {alias: found.number for alias, found in aliases.items()},
                    "description": newest.manifest.description,
                }
            )
        emit({"registry": opened.url, "models": models}, as_json, lambda: _models_text(models))
        return
    versions = opened.versions(name)
    aliases = opened.aliases(name)
    document = {
        "registry": opened.url,
        "name": name,
        "versions": [
            version.to_dict(full=False) | {"aliases": _aliases_of(version, aliases)}
            for version in versions
        ],
    }
    emit(document, as_json, lambda: _versions_text(versions, aliases))


@app.command()
def show(reference: Reference, registry: RegistryOption = None, as_json: JsonFlag = False) -> None:
    """Show one version: figures, files, lineage, events. Example: fer models show name@champion"""
    opened = _open(registry)
    version = opened.resolve(reference)
    aliases = opened.aliases(version.name)
    events = [event for event in opened.events(version.name) if event.version == version.number]
    document = version.to_dict() | {
        "aliases": _aliases_of(version, aliases),
        "events": [event.model_dump(mode="json") for event in events],
    }

    def text() -> str:
        lines = [
            f"[bold]{version}[/bold]  {_plain(version.manifest.description)}",
            f"digest    sha256:{version.digest}",
            f"created   {version.created} by {_plain(version.author)}",
            f"aliases   {', '.join(_aliases_of(version, aliases)) or 'none'}",
            f"size      {_size(version.size)}",
        ]
        if version.note:
            lines.append(f"note      {_plain(version.note)}")
        lines.append("files")
        lines += [
            f"  {name}  {_size(entry.size)}  {entry.sha256[:12]}"
            for name, entry in sorted(version.manifest.files.items())
        ]
        for title, values in (
            ("metrics", version.manifest.metrics),
            ("lineage", version.manifest.lineage),
        ):
            lines.append(title)
            lines += [f"  {_plain(key)}  {_plain(_value(value))}" for key, value in values.items()]
        lines.append("events")
        for event in events:
            where = f" @{event.alias}" if event.alias else ""
            lines.append(f"  {event.time}  {event.action}{where}  {_plain(event.reason)}".rstrip())
            if event.gate:
                lines.append(f"    gate  {_plain(_value(event.gate))}")
        return "\n".join(lines)

    emit(document, as_json, text)


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="The model package.")],
    message: Annotated[str, typer.Option("--note", "-n", help="Kept with the version.")] = "",
    promote_as: Annotated[
        str | None, typer.Option("--promote-as", help="Also point this alias at it.")
    ] = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Register a package. Example: fer models register models/package --promote-as champion"""
    from fer.registry.reference import check_alias

    if promote_as is not None:
        # A bad alias must not leave a version behind.
        check_alias(promote_as, movable=True)
    opened = _open(registry)
    version = opened.register(folder, message)
    document = {"registry": opened.url} | version.to_dict(full=False)
    if promote_as is not None:
        alias = opened.promote(version.name, version.number, promote_as, reason=message)
        document["alias"] = _alias_document(alias)
    said = f" and promoted as @{promote_as}" if promote_as else ""
    emit(
        document,
        as_json,
        lambda: f"Registered [bold]{version}[/bold]{said} (sha256:{version.digest[:12]}).",
    )
    if promote_as is None:
        note(f"Next: fer models promote {version} --alias champion")


@app.command()
def promote(
    reference: Reference,
    alias: AliasOption = "champion",
    reason: Reason = "",
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias at a version. Example: fer models promote name:7 --alias champion"""
    opened = _open(registry)
    version = opened.resolve(reference)
    moved = opened.promote(version.name, version.number, alias, reason)
    emit(_alias_document(moved), as_json, lambda: _alias_text(moved))


@app.command()
def rollback(
    name: Name,
    alias: AliasOption = "champion",
    reason: Reason = "",
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias back at its predecessor. Example: fer models rollback name"""
    moved = _open(registry).rollback(name, alias, reason)
    emit(_alias_document(moved), as_json, lambda: _alias_text(moved))


@app.command()
def pull(reference: Reference, registry: RegistryOption = None, as_json: JsonFlag = False) -> None:
    """Pull a model into the cache; print its folder. Example: fer models pull name@champion"""
    from fer.registry import pull as pull_package

    package = pull_package(reference, registry)
    document = {
        "reference": reference,
        "name": package.name,
        "digest": package.digest,
        "folder": str(package.folder),
        "size": package.manifest.size,
    }
    emit(document, as_json, lambda: _plain(str(package.folder)))


@app.command()
def verify(
    reference: Reference, registry: RegistryOption = None, as_json: JsonFlag = False
) -> None:
    """Recompute every digest of a version. Example: fer models verify name@champion"""
    from fer.errors import RegistryError

    report = _open(registry).verify(reference)
    document = {
        "name": report.version.name,
        "version": report.version.number,
        "ok": report.ok,
        "files": [
            {"name": file.name, "sha256": file.sha256, "size": file.size, "problem": file.problem}
            for file in report.files
        ],
    }

    def text() -> str:
        marks = [
            f"{'[red]bad[/red]' if file.problem else '[green]ok[/green] '} {file.name}"
            + (f": {_plain(file.problem)}" if file.problem else "")
            for file in report.files
        ]
        return "\n".join([f"[bold]{report.version}[/bold]", *marks])

    emit(document, as_json, text)
    if not report.ok:
        raise RegistryError(
            f"{report.version} is damaged. Restore the blobs named above from a backup (their keys "
            "are blobs/sha256/<sha256>), or roll back with `fer models rollback "
            f"{report.version.name}` and register the package anew."
        )


def _open(url: str | None) -> Registry:
    from fer.registry import Registry

    return Registry.open(url)


def _aliases_of(version: Version, aliases: dict[str, Alias]) -> list[str]:
    return [alias for alias, found in aliases.items() if found.number == version.number]


def _alias_document(alias: Alias) -> dict[str, Any]:
    from dataclasses import asdict

    document = asdict(alias)
    document["version"] = document.pop("number")
    return document


def _alias_text(alias: Alias) -> str:
    before = f" (before: version {alias.previous})" if alias.previous else ""
    return f"{alias.name}@{alias.alias} is now [bold]version {alias.number}[/bold]{before}."


def _models_text(models: list[dict[str, Any]]) -> str:
    if not models:
        return "No model yet. Register one: fer models register FOLDER"
    lines = []
    for model in models:
        aliases = "  ".join(f"@{alias}={number}" for alias, number in model["aliases"].items())
        lines.append(
            f"[bold]{model['name']}[/bold]  latest={model['latest']}  {aliases}  "
            f"{_plain(model['description'])}".rstrip()
        )
    return "\n".join(lines)


def _versions_text(versions: list[Version], aliases: dict[str, Alias]) -> str:
    lines = []
    for version in reversed(versions):
        marks = " ".join(f"@{alias}" for alias in _aliases_of(version, aliases))
        figures = "  ".join(
            f"{_plain(key)}={_value(value)}"
            for key, value in version.manifest.metrics.items()
            if isinstance(value, int | float)
        )
        lines.append(
            f"[bold]{version}[/bold] {marks}  {version.created[:19]}  {_size(version.size)}  "
            f"{figures}  {_plain(version.note)}".rstrip()
        )
    return "\n".join(lines)


def _value(value: Any) -> str:
    import json

    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _plain(text: str) -> str:
    """Text from a package, so that none of it is taken for markup or steers the terminal."""
    from rich.markup import escape

    return escape("".join(sign if sign.isprintable() else " " for sign in text))
