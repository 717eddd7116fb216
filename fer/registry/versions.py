"""What a registry tells of versions and aliases: `Version`, `VersionState`, and summaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fer.registry.documents import AliasDocument, Note, StateDocument, VersionDocument
from fer.registry.manifest import PackageManifest

_FIGURES: Final = 40
_TEXT: Final = 300
_BOUNDS: Final = ("_low", "_high")


@dataclass(frozen=True)
class Version:
    """One registered version of a model; it never changes.

    Attributes:
        digest: sha256 of the package's manifest.json.
        created: UTC, ISO 8601.
        author: user@host of the registration.
        origin: registry, version, author and time it was imported from; None if registered here.
    """

    name: str
    number: int
    digest: str
    created: str
    author: str
    note: str
    manifest: PackageManifest
    origin: dict[str, Any] | None = None

    @classmethod
    def of(cls, document: VersionDocument) -> Version:
        """The version that a document commits."""
        return cls(
            name=document.name,
            number=document.number,
            digest=document.digest,
            created=document.created,
            author=document.author,
            note=document.note,
            manifest=document.package,
            origin=document.origin,
        )

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self.manifest.size

    def __str__(self) -> str:
        return f"{self.name}:{self.number}"

    def to_dict(self, *, full: bool = True) -> dict[str, Any]:
        """As JSON; without `full`, no file list and lineage."""
        summary = {
            "name": self.name,
            "version": self.number,
            "digest": self.digest,
            "created": self.created,
            "author": self.author,
            "note": self.note,
            "size": self.size,
            "description": self.manifest.description,
            "metrics": self.manifest.metrics,
        }
        if self.origin:
            summary["origin"] = self.origin
        if full:
            summary["package"] = self.manifest.model_dump(mode="json")
        return summary


@dataclass(frozen=True)
class VersionState:
    """What may change about a version.

    Attributes:
        tags: name -> value.
        notes: oldest first; the note of the registration is the version's own.
        deprecated: why nobody should use it any more, None where all is well.
        deleted: why it was deleted, None while it is not.
        purged: deleted for good: its blobs were given up.
        gate: the latest gate decision on it, as `GateDecision.document()` gives it.
        signatures: Sigstore bundles of its manifest, by the fingerprint of their key.
        changed: UTC time of the latest change, "" where there was none.
    """

    tags: dict[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    deprecated: str | None = None
    deleted: str | None = None
    purged: bool = False
    gate: dict[str, Any] | None = None
    signatures: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: str = ""

    @classmethod
    def of(cls, document: StateDocument | None) -> VersionState:
        """The state that a document holds; a fresh one for None."""
        if document is None:
            return cls()
        return cls(
            tags=dict(document.tags),
            notes=document.notes,
            deprecated=document.deprecated,
            deleted=document.deleted,
            purged=document.purged,
            gate=document.gate,
            signatures=dict(document.signatures),
            changed=document.event.time,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tags": self.tags,
            "notes": [note.model_dump(mode="json") for note in self.notes],
            "deprecated": self.deprecated,
            "deleted": self.deleted,
            "purged": self.purged,
            "gate": self.gate,
            "signatures": sorted(self.signatures),
        }


@dataclass(frozen=True)
class VersionSummary:
    """A line of a listing: read from the index, so without files and lineage.

    Attributes:
        note: of the registration, its first 300 characters.
        description: the package's, its first 300 characters.
        metrics: numbers of the package's metrics by dotted name, bounds of intervals left out.
    """

    name: str
    number: int
    digest: str
    created: str
    author: str
    note: str
    size: int
    description: str
    metrics: dict[str, float]
    state: VersionState = field(default_factory=VersionState)

    def __str__(self) -> str:
        return f"{self.name}:{self.number}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return summary_record(self) | self.state.to_dict()


@dataclass(frozen=True)
class Alias:
    """Where an alias points.

    Attributes:
        number: the version; `previous` is the one before, for a rollback.
        generation: moves so far.
        forced: whether the latest move was a promotion in spite of the gate.
    """

    name: str
    alias: str
    number: int
    previous: int | None
    generation: int
    time: str
    author: str
    reason: str
    gate: dict[str, Any] | None
    forced: bool = False

    @classmethod
    def of(cls, document: AliasDocument) -> Alias:
        """The alias that a document holds."""
        return cls(
            name=document.name,
            alias=document.alias,
            number=document.version,
            previous=document.previous,
            generation=document.generation,
            time=document.event.time,
            author=document.event.author,
            reason=document.event.reason,
            gate=document.event.gate,
            forced=document.event.forced,
        )


def summarise(version: Version) -> VersionSummary:
    """A version without what a listing does not need."""
    return VersionSummary(
        name=version.name,
        number=version.number,
        digest=version.digest,
        created=version.created,
        author=version.author[:_TEXT],
        note=version.note[:_TEXT],
        size=version.size,
        description=version.manifest.description[:_TEXT],
        metrics=dict(list(figures(version.manifest.metrics).items())[:_FIGURES]),
    )


def summary_record(summary: VersionSummary) -> dict[str, Any]:
    """What the index holds of a summary."""
    return {
        "name": summary.name,
        "version": summary.number,
        "digest": summary.digest,
        "created": summary.created,
        "author": summary.author,
        "note": summary.note,
        "size": summary.size,
        "description": summary.description,
        "metrics": summary.metrics,
    }


def read_summary(record: Mapping[str, Any]) -> VersionSummary:
    """A summary from the index.

    Raises:
        KeyError, TypeError, ValueError: the record is damaged.
    """
    return VersionSummary(
        name=str(record["name"]),
        number=int(record["version"]),
        digest=str(record["digest"]),
        created=str(record["created"]),
        author=str(record["author"]),
        note=str(record["note"]),
        size=int(record["size"]),
        description=str(record["description"]),
        metrics=dict(record["metrics"]),
    )


def figures(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a JSON object by dotted name, without the bounds of their intervals."""
    found: dict[str, float] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{prefix}{name}.")
        elif isinstance(value, bool) or name.endswith(_BOUNDS):
            continue
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found
