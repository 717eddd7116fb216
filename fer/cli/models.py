"""`fer models`: the registry on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer.cli.console import JsonFlag, emit, note
from fer.cli.models_common import (
    AliasOption,
    Force,
    Name,
    ProgressFlag,
    Reason,
    Reference,
    RegistryOption,
    TrustedOption,
    alias_document,
    alias_text,
    aliases_of,
    gate_lines,
    open_registry,
    plain,
    size_text,
    value_text,
)
from fer.cli.models_upkeep import upkeep

if TYPE_CHECKING:
    from fer.registry import Alias, Event, Registry, VersionSummary

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Register, promote and pull models. Example: fer models list --registry ./registry",
)
_HEADLINE = ("test.accuracy", "test.macro_f1", "test.ece", "clean.accuracy")


@app.command()
def init(registry: RegistryOption = None, as_json: JsonFlag = False) -> None:
    """Make a registry and prove its store fit for one. Example: fer models init -r s3://bucket/fer

    Not needed: the first registration does it too. A store that ignores conditional writes is
    refused, unless FER_SINGLE_WRITER says that only one process ever writes.
    """
    opened = open_registry(registry)
    opened.initialize()
    emit({"registry": opened.url}, as_json, lambda: f"{plain(opened.url)} is ready.")
    note("Next: fer models register models/package")


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Show this model's versions.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted versions too.")] = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the models, or the versions of one. Example: fer models list fer2013-efficientnetb2"""
    opened = open_registry(registry)
    if name is None:
        models = [_model(opened, model) for model in opened.models()]
        emit({"registry": opened.url, "models": models}, as_json, lambda: _models_text(models))
        return
    versions = opened.summaries(name, deleted=deleted)
    aliases = opened.aliases(name)
    document = {
        "registry": opened.url,
        "name": name,
        "versions": [
            version.to_dict() | {"aliases": aliases_of(version.number, aliases)}
            for version in versions
        ],
    }
    emit(document, as_json, lambda: _versions_text(versions, aliases))


@app.command()
def show(reference: Reference, registry: RegistryOption = None, as_json: JsonFlag = False) -> None:
    """Show one version: figures, files, lineage, events. Example: fer models show name@champion"""
    opened = open_registry(registry)
    version = opened.resolve(reference, deleted=True)
    state = opened.state(version.name, version.number)
    aliases = aliases_of(version.number, opened.aliases(version.name))
    events = [event for event in opened.events(version.name) if event.version == version.number]
    forced = [event for event in events if event.forced]
    document = (
        version.to_dict()
        | state.to_dict()
        | {
            "aliases": aliases,
            "forced": [event.model_dump(mode="json") for event in forced],
            "events": [event.model_dump(mode="json") for event in events],
        }
    )

    def text() -> str:
        lines = [f"[bold]{version}[/bold]  {plain(version.manifest.description)}"]
        if state.deleted:
            lines.append(f"[red]deleted[/red]   {plain(state.deleted)}")
        if state.deprecated:
            lines.append(f"[yellow]deprecated[/yellow] {plain(state.deprecated)}")
        lines += [
            f"[red]FORCED[/red]    past the gate as @{event.alias} on {event.time[:19]} by "
            f"{plain(event.author)}: {plain(event.reason) or 'no reason given'}"
            for event in forced
        ]
        lines += [
            f"digest    sha256:{version.digest}",
            f"created   {version.created} by {plain(version.author)}",
            f"aliases   {', '.join(aliases) or 'none'}",
            f"size      {size_text(version.size)}",
        ]
        if version.origin:
            lines.append(f"origin    {plain(value_text(version.origin))}")
        if state.tags:
            tags = "  ".join(f"{tag}={value}" for tag, value in state.tags.items())
            lines.append(f"tags      {plain(tags)}")
        if state.signatures:
            signers = "  ".join(one[:12] for one in sorted(state.signatures))
            lines.append(f"signed    by {plain(signers)}")
        if version.note:
            lines.append(f"note      {plain(version.note)}")
        lines += [
            f"note      {one.time[:10]} {plain(one.author)}: {plain(one.text)}"
            for one in state.notes
        ]
        lines.append("files")
        lines += [
            f"  {name}  {size_text(entry.size)}  {entry.sha256[:12]}"
            for name, entry in sorted(version.manifest.files.items())
        ]
        for title, values in (
            ("metrics", version.manifest.metrics),
            ("lineage", version.manifest.lineage),
        ):
            lines.append(title)
            lines += [f"  {plain(key)}  {plain(value_text(item))}" for key, item in values.items()]
        if state.gate:
            lines += ["gate", *(f"  {line}" for line in gate_lines(state.gate))]
        return "\n".join([*lines, "events", *_events_text(events)])

    emit(document, as_json, text)


@app.command()
def log(
    name: Name,
    last: Annotated[int | None, typer.Option(min=1, help="Only this many, the newest.")] = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show who did what to a model, when and why. Example: fer models log name --last 20

    The log is append-only: deletions and forced promotions stay in it for ever.
    """
    opened = open_registry(registry)
    events = opened.events(name, last)
    document = {
        "registry": opened.url,
        "name": name,
        "events": [event.model_dump(mode="json") for event in events],
    }
    emit(document, as_json, lambda: "\n".join(_events_text(events, versions=True)))


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
    opened = open_registry(registry)
    version = opened.register(folder, message)
    document = {"registry": opened.url} | version.to_dict(full=False)
    if promote_as is not None:
        alias = opened.promote(version.name, version.number, promote_as, reason=message)
        document["alias"] = alias_document(alias)
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
    force: Force = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias at a version. Example: fer models promote name:7 --alias champion

    A version that the gate did not let pass (fer models gate) becomes champion by --force alone.
    """
    opened = open_registry(registry)
    version = opened.resolve(reference)
    moved = opened.promote(version.name, version.number, alias, reason, force=force)
    emit(alias_document(moved), as_json, lambda: alias_text(moved))


@app.command()
def rollback(
    name: Name,
    alias: AliasOption = "champion",
    reason: Reason = "",
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias back at its predecessor. Example: fer models rollback name"""
    moved = open_registry(registry).rollback(name, alias, reason)
    emit(alias_document(moved), as_json, lambda: alias_text(moved))


@app.command()
def pull(
    reference: Reference,
    trusted: TrustedOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pull a model into the cache; print its folder. Example: fer models pull name@champion"""
    from fer.registry import pull as pull_package

    package = pull_package(reference, registry, trusted=trusted)
    document = {
        "reference": reference,
        "name": package.name,
        "digest": package.digest,
        "folder": str(package.folder),
        "size": package.manifest.size,
    }
    emit(document, as_json, lambda: plain(str(package.folder)))


@app.command()
def verify(
    reference: Annotated[
        str | None, typer.Argument(help="name, name@alias or name:7; everything where not given.")
    ] = None,
    progress: ProgressFlag = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Recompute every digest of a version. Example: fer models verify name@champion

    Without a version the whole registry is read: documents, aliases, and each file once.
    """
    opened = open_registry(registry)
    if reference is None:
        _audit(opened, progress, as_json)
        return
    from fer.errors import RegistryError

    report = opened.verify(reference, progress)
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
            + (f": {plain(file.problem)}" if file.problem else "")
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


def _audit(registry: Registry, progress: bool, as_json: bool) -> None:
    from fer.errors import RegistryError

    report = registry.audit(progress)

    def text() -> str:
        lines = []
        for finding in report.findings:
            lines.append(f"[red]bad[/red] {plain(finding.key)}: {plain(finding.problem)}")
            lines.append(f"    {plain(finding.advice)}")
        lines.append(
            f"{report.models} models, {report.versions} versions, {report.blobs} files of "
            f"{size_text(report.size)}: {len(report.findings) or 'no'} problems."
        )
        return "\n".join(lines)

    emit(report.to_dict(), as_json, text)
    if not report.ok:
        raise RegistryError(f"{registry.url} is damaged in {len(report.findings)} places.")


def _models_text(models: list[dict[str, Any]]) -> str:
    if not models:
        return "No model yet. Register one: fer models register FOLDER"
    lines = []
    for model in models:
        aliases = "  ".join(f"@{alias}={number}" for alias, number in model["aliases"].items())
        lines.append(
            f"[bold]{model['name']}[/bold]  latest={model['latest'] or 'none'}  {aliases}  "
            f"{plain(model['description'])}".rstrip()
        )
    return "\n".join(lines)


def _model(registry: Registry, name: str) -> dict[str, Any]:
    """A line of the list of models; one whose versions were all deleted has no latest."""
    from fer.errors import NotFoundError

    try:
        newest = registry.resolve(f"{name}@latest")
    except NotFoundError:
        newest = None
    return {
        "name": name,
        "latest": newest.number if newest else None,
        "aliases": {alias: found.number for alias, found in registry.aliases(name).items()},
        "description": newest.manifest.description if newest else "",
    }


def _versions_text(versions: list[VersionSummary], aliases: dict[str, Alias]) -> str:
    lines = []
    for version in reversed(versions):
        marks = [f"@{alias}" for alias in aliases_of(version.number, aliases)]
        state = version.state
        marks += [f"{tag}={value}" if value else tag for tag, value in state.tags.items()]
        marks += ["deprecated"] * bool(state.deprecated) + ["deleted"] * bool(state.deleted)
        if state.gate is not None:
            marks.append("gate:passed" if state.gate.get("passed") else "gate:failed")
        named = [name for name in _HEADLINE if name in version.metrics]
        named = named or [name for name in version.metrics if "." not in name][:4]
        figures = "  ".join(f"{plain(name)}={version.metrics[name]:.4g}" for name in named)
        lines.append(
            f"[bold]{version}[/bold] {plain(' '.join(marks))}  {version.created[:19]}  "
            f"{size_text(version.size)}  {figures}  {plain(version.note)}".rstrip()
        )
    return "\n".join(lines)


def _events_text(events: list[Event], *, versions: bool = False) -> list[str]:
    lines = []
    for event in events:
        where = f" {event.version}" if versions else ""
        where += f" @{event.alias}" if event.alias else ""
        forced = " [red]FORCED[/red]" if event.forced else ""
        line = f"  {event.time}  {event.action}{where}{forced}  {plain(event.author)}  "
        lines.append((line + plain(event.reason)).rstrip())
        if event.details:
            lines.append(f"    {plain(value_text(event.details))}")
        if event.gate and event.action != "gate":
            lines += [f"    {line}" for line in gate_lines(event.gate)[:1]]
    return lines


app.registered_commands += upkeep.registered_commands
