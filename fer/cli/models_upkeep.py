"""`fer models`, what comes after registration: gate, tags, deletion, comparison, copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer.cli.console import JsonFlag, ParamsFile, emit, note
from fer.cli.models_common import (
    ProgressFlag,
    Reason,
    Reference,
    RegistryOption,
    gate_lines,
    is_path,
    open_registry,
    plain,
    size_text,
    value_text,
)

if TYPE_CHECKING:
    from fer.registry import Diff, PackageManifest, Registry, Version, VersionState

upkeep = typer.Typer()


@upkeep.command()
def gate(
    reference: Reference,
    data: Annotated[Path, typer.Option(help="The prepared table; its test images decide.")] = Path(
        "data/prepared/faces.parquet"
    ),
    params: ParamsFile = Path("params.yaml"),
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a version beside the champion on the same images. Example: fer models gate name:7

    The decision is recorded. A version that fails is not promoted to champion but by force.
    """
    from fer.dataset.table import FaceTable
    from fer.errors import NotFoundError
    from fer.evaluation.gate_data import judge
    from fer.params import load_params
    from fer.progress import Progress

    opened = open_registry(registry)
    version = opened.resolve(reference)
    limits = load_params(params)
    table = FaceTable.read(data)
    try:
        champion = opened.resolve(f"{version.name}@champion")
    except NotFoundError:
        champion = None
    if champion is not None and champion.number == version.number:
        champion = None
    with Progress("Judging") as bar:
        decision = judge(
            opened.pull(str(version)),
            opened.pull(str(champion)) if champion else None,
            table,
            limits.gate,
            bins=limits.evaluate.calibration_bins,
            progress=bar.update,
        )
    document = decision.document() | {"champion": champion.number if champion else None}
    opened.judge(version.name, version.number, document)
    emit(
        {"name": version.name, "version": version.number} | document,
        as_json,
        lambda: "\n".join([f"[bold]{version}[/bold]", *gate_lines(document)]),
    )
    decision.require()
    note(f"Next: fer models promote {version}")


@upkeep.command()
def tag(
    reference: Reference,
    tags: Annotated[list[str] | None, typer.Argument(help="name=value, or a name alone.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="A tag to remove.")] = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Set and remove tags of a version. Example: fer models tag name:7 stage=field-test"""
    opened = open_registry(registry)
    version = opened.resolve(reference)
    wanted = {name: value for name, _, value in (one.partition("=") for one in tags or [])}
    state = opened.tag(version.name, version.number, wanted, tuple(remove or ()))
    _say(version, state, as_json, f"tags: {value_text(state.tags)}")


@upkeep.command("note")
def write_note(
    reference: Reference,
    text: Annotated[str, typer.Argument(help="What to keep with the version.")],
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a note to a version. Example: fer models note name:7 "fails on side views" """
    opened = open_registry(registry)
    version = opened.resolve(reference)
    state = opened.note(version.name, version.number, text)
    _say(version, state, as_json, f"notes: {len(state.notes)}")


@upkeep.command()
def sign(
    reference: Reference,
    key: Annotated[Path, typer.Option(help="Private key, PEM, on P-256, P-384 or P-521.")],
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Sign a version, so that pulls can demand it. Example: fer models sign name:7 --key key.pem

    Make the keys with openssl:  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    -out key.pem;  openssl pkey -in key.pem -pubout -out public.pem. FER_SIGNING_PASSWORD holds
    the password of an encrypted key.
    """
    opened = open_registry(registry)
    version = opened.resolve(reference)
    state = opened.sign(str(version), key)
    signers = ", ".join(one[:12] for one in sorted(state.signatures))
    _say(version, state, as_json, f"signed by {signers}")
    note(f"Next: fer models pull {version} --trusted public.pem, or set FER_TRUSTED_KEYS")


@upkeep.command()
def deprecate(
    reference: Reference,
    reason: Reason = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say that a version should not be used any more. Example: fer models deprecate name:3

    Pulling it warns, and no alias is promoted to it.
    """
    opened = open_registry(registry)
    version = opened.resolve(reference)
    change = opened.undeprecate if undo else opened.deprecate
    state = change(version.name, version.number, reason)
    _say(version, state, as_json, "in use again" if undo else f"deprecated: {state.deprecated}")


@upkeep.command()
def delete(
    reference: Reference,
    reason: Reason = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also where a rollback would go to it.")
    ] = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a version; gc frees its space later. Example: fer models delete name:3"""
    opened = open_registry(registry)
    version = opened.resolve(reference)
    state = opened.delete(version.name, version.number, reason, force=force)
    _say(version, state, as_json, "deleted")
    note(f"Until `fer models gc` gives it up, `fer models restore {version}` brings it back.")


@upkeep.command()
def restore(
    reference: Reference,
    reason: Reason = "",
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring a deleted version back. Example: fer models restore name:3"""
    opened = open_registry(registry)
    version = opened.resolve(reference, deleted=True)
    _say(version, opened.restore(version.name, version.number, reason), as_json, "restored")


@upkeep.command()
def gc(
    apply: Annotated[bool, typer.Option("--apply", help="Delete; otherwise only tell.")] = False,
    grace: Annotated[
        float, typer.Option(min=0, help="Hours; nothing younger goes. Longer than any register.")
    ] = 24.0,
    progress: ProgressFlag = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what nothing refers to, and delete it with --apply. Example: fer models gc --apply"""
    from datetime import timedelta

    opened = open_registry(registry)
    report = opened.collect_garbage(timedelta(hours=grace), apply=apply, progress=progress)

    def text() -> str:
        went = "Deleted" if apply else "Would delete"
        lines = [f"purge {plain(one)}" for one in report.purged]
        lines += [f"blob  {one}" for one in report.blobs]
        lines += [f"left  {plain(one)}" for one in report.leftovers]
        lines.append(
            f"{went} {len(report.blobs)} blobs and {len(report.leftovers)} leftovers, "
            f"{size_text(report.size)}; {report.kept} blobs stay."
        )
        return "\n".join(lines)

    emit({"registry": opened.url} | report.to_dict(), as_json, text)
    if not apply and (report.blobs or report.leftovers or report.purged):
        note("Nothing was deleted. Repeat with --apply.")


@upkeep.command()
def diff(
    before: Annotated[str, typer.Argument(help="name, name@alias, name:7, or a package's folder.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare two versions or packages. Example: fer models diff name@champion models/package"""
    from fer.registry import compare

    found = compare(_manifest(before, registry), _manifest(after, registry))
    document = {"before": before, "after": after} | found.to_dict()
    emit(document, as_json, lambda: _diff_text(before, after, found))


@upkeep.command("export")
def export_version(
    reference: Reference,
    to: Annotated[str, typer.Option("--to", help="The other registry: a folder or s3://...")],
    every: Annotated[
        bool, typer.Option("--all", help="All versions of that model, in their order.")
    ] = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a version to another registry. Example: fer models export name:7 --to ./registry"""
    from fer.registry import Registry

    _copy(open_registry(registry), Registry.open(to), reference, every, as_json)


@upkeep.command("import")
def import_version(
    reference: Reference,
    origin: Annotated[str, typer.Option("--from", help="The other registry: a folder or s3://...")],
    every: Annotated[
        bool, typer.Option("--all", help="All versions of that model, in their order.")
    ] = False,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a version from another registry. Example: fer models import name:7 --from s3://b/fer"""
    from fer.registry import Registry

    _copy(Registry.open(origin), open_registry(registry), reference, every, as_json)


def _copy(source: Registry, target: Registry, reference: str, every: bool, as_json: bool) -> None:
    from fer.errors import UsageError

    if source.store.identity == target.store.identity:
        raise UsageError(f"{source.url} is both registries. Name another with --to or --from.")
    references = [reference]
    if every:
        name = source.resolve(reference, deleted=True).name
        references = [str(version) for version in source.summaries(name)]
    copies = [(one, source.copy_to(target, one)) for one in references]
    document = {
        "from": source.url,
        "to": target.url,
        "versions": [
            {"from": origin, "to": str(copy), "digest": copy.digest} for origin, copy in copies
        ],
    }

    def text() -> str:
        return "\n".join(
            f"{origin} is [bold]{copy}[/bold] in {plain(target.url)} (sha256:{copy.digest[:12]})."
            for origin, copy in copies
        )

    emit(document, as_json, text)


def _manifest(reference: str, registry: str | None) -> PackageManifest:
    if is_path(reference):
        from fer.registry import ModelPackage

        return ModelPackage.open(reference).manifest
    return open_registry(registry).resolve(reference, deleted=True).manifest


def _diff_text(before: str, after: str, found: Diff) -> str:
    lines = [f"[bold]{plain(before)}[/bold] -> [bold]{plain(after)}[/bold]"]
    for section in ("metrics", "params", "data", "code", "training", "files"):
        changes = getattr(found, section)
        if not changes:
            lines.append(f"{section}  the same")
            continue
        lines.append(section)
        for name, change in changes.items():
            short = 12 if section in {"files", "data"} else 200
            one, other = (
                "none" if value is None else value_text(value)[:short]
                for value in (change.before, change.after)
            )
            delta = f"  ({change.delta:+.4g})" if change.delta is not None else ""
            lines.append(f"  {plain(name)}  {plain(one)} -> {plain(other)}{delta}")
    if found.metrics and not found.same_data:
        lines.append("The data differ, so the metrics do not compare.")
    return "\n".join(lines)


def _say(version: Version, state: VersionState, as_json: bool, text: str) -> None:
    document: dict[str, Any] = {"name": version.name, "version": version.number}
    emit(document | state.to_dict(), as_json, lambda: f"[bold]{version}[/bold] {plain(text)}")
