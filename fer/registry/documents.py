"""The JSON documents of the registry's layout.

    registry.json                              that this is a registry, and its schema version
    blobs/sha256/<digest>                      content-addressed, written once; manifests too
    models/<name>/versions/<n>.json            VersionDocument; creating it is the commit
    models/<name>/digests/<digest>.json        which version has a package digest (derived)
    models/<name>/aliases/<alias>.json         AliasDocument, moved by compare-and-swap
    models/<name>/states/<n>.json              StateDocument: what may change about a version
    models/<name>/index/<k>.json               IndexDocument: summaries of 100 versions (derived)
    models/<name>/events/<time>-<id>.json      Event, written once
    pending/<id>.json                          PendingDocument: blobs that a registration needs
    sweep.json                                 SweepDocument: whether blobs are being collected

Version numbers are tried one after the other, so they have no gap. What follows from a commit
(the digest entry, the event) is written after it; a writer that dies in between leaves that to
the next one, which completes its predecessor's before it commits. So at most the newest version
and the newest move of an alias can lack theirs, and readers take those from the document itself.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fer.errors import RegistryError
from fer.registry.manifest import (
    DIGEST_PATTERN,
    NAME_PATTERN,
    PackageManifest,
    canonical_json,
    check_schema_version,
    describe,
    parse_json,
)
from fer.registry.store import MAX_DOCUMENT

SCHEMA_VERSION: Final = 1
HISTORY: Final = 50
"""Changes a moving document remembers; the event log remembers all."""
INDEXED: Final = 100
"""Versions that one index document sums up."""

ROOT: Final = "registry.json"
SWEEP: Final = "sweep.json"
PENDING: Final = "pending/"
_VERSION_KEY = re.compile(r"models/[^/]+/versions/([1-9][0-9]{0,8})\.json")
D = TypeVar("D", bound="Document")


def blob_key(digest: str) -> str:
    """Where the bytes with this sha256 lie."""
    return f"blobs/sha256/{digest}"


def versions_prefix(name: str) -> str:
    """Where the versions of a model lie."""
    return f"models/{name}/versions/"


def version_key(name: str, number: int) -> str:
    """Where version `number` of a model is committed."""
    return f"models/{name}/versions/{number}.json"


def version_number(key: str) -> int | None:
    """The version number of a key, None where it is no version's key."""
    found = _VERSION_KEY.fullmatch(key)
    return int(found[1]) if found else None


def digest_key(name: str, digest: str) -> str:
    """Where the version with this package digest is noted."""
    return f"models/{name}/digests/{digest}.json"


def alias_key(name: str, alias: str) -> str:
    """Where an alias lies."""
    return f"models/{name}/aliases/{alias}.json"


def state_key(name: str, number: int) -> str:
    """Where what may change about a version lies; absent while nothing has."""
    return f"models/{name}/states/{number}.json"


def index_key(name: str, part: int) -> str:
    """Where the summaries of versions 100 x part + 1 to 100 x part + 100 lie."""
    return f"{index_prefix(name)}{part}.json"


def index_prefix(name: str) -> str:
    """Where the index of a model lies."""
    return f"models/{name}/index/"


def pending_key(identity: str) -> str:
    """Where a registration under way says which blobs it needs."""
    return f"{PENDING}{identity}.json"


def now() -> str:
    """UTC time to the microsecond, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_id() -> str:
    """A nonce: no two writes have the same bytes."""
    return uuid.uuid4().hex


class Document(BaseModel):
    """What all have in common; fields of later minor versions are kept, not refused."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        try:
            return canonical_json(self.model_dump(mode="json"))
        except ValueError as error:
            raise RegistryError(f"This cannot be written as JSON: {error}. Correct it.") from None

    @classmethod
    def from_bytes(cls: type[D], data: bytes, where: str) -> D:
        """Read and check a document.

        Raises:
            RegistryError: damaged, or of a newer schema; the message names `where`.
        """
        try:
            document = parse_json(data, MAX_DOCUMENT)
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
            check_schema_version(document.get("schema_version"), SCHEMA_VERSION)
            return cls.model_validate(document)
        except ValidationError as error:
            reason = describe(error)
        except ValueError as error:
            reason = str(error)
        raise RegistryError(
            f"{where} is no document of a registry: {reason}. Check that the registry's address "
            "is right; if the document is damaged, restore it from a backup."
        )


class RootDocument(Document):
    """registry.json: written at the first registration."""

    kind: Literal["fer-registry"] = "fer-registry"
    created: str


class Event(Document):
    """Who moved what, when, why, and on which figures."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
    name: str
    action: str
    version: int
    alias: str | None = None
    previous: int | None = None
    author: str = ""
    reason: str = ""
    gate: dict[str, JsonValue] | None = None
    forced: bool = Field(default=False, description="Promoted in spite of the gate.")
    details: dict[str, JsonValue] | None = None

    @property
    def key(self) -> str:
        """Where it lies; keys sort by time."""
        time = re.sub(r"[-:]", "", self.time).lower()
        return f"models/{self.name}/events/{time}-{self.id[:12]}.json"


class VersionDocument(Document):
    """models/<name>/versions/<n>.json."""

    name: str = Field(pattern=NAME_PATTERN)
    number: int = Field(ge=1)
    digest: str = Field(pattern=DIGEST_PATTERN, description="sha256 of the package's manifest.")
    created: str
    author: str = ""
    note: str = ""
    nonce: str
    origin: dict[str, JsonValue] | None = Field(
        default=None, description="Where it was imported from."
    )
    package: PackageManifest

    @property
    def event(self) -> Event:
        """The event of this registration; it follows from the document."""
        return Event(
            id=self.nonce,
            time=self.created,
            name=self.name,
            action="register",
            version=self.number,
            author=self.author,
            reason=self.note,
            details={"origin": self.origin} if self.origin else None,
        )


class DigestDocument(Document):
    """models/<name>/digests/<digest>.json."""

    number: int = Field(ge=1)


class MovingDocument(Document):
    """A document that changes, by compare-and-swap only."""

    name: str
    generation: int = Field(ge=1, description="Changes so far; no two states have equal bytes.")
    event: Event = Field(description="The change that made this state; `id` is its nonce.")
    history: list[dict[str, JsonValue]] = []

    def has_change(self, identity: str) -> bool:
        """Whether the change with this id is among the latest."""
        return any(entry.get("event") == identity for entry in self.history)


class AliasDocument(MovingDocument):
    """models/<name>/aliases/<alias>.json."""

    alias: str
    version: int = Field(ge=1)
    digest: str = Field(pattern=DIGEST_PATTERN)
    previous: int | None = None


class Note(BaseModel):
    """What somebody wrote down about a version."""

    model_config = ConfigDict(extra="allow", frozen=True)

    time: str
    author: str
    text: str


class StateDocument(MovingDocument):
    """models/<name>/states/<n>.json."""

    number: int = Field(ge=1)
    tags: dict[str, str] = {}
    notes: tuple[Note, ...] = ()
    deprecated: str | None = Field(default=None, description="Why nobody should use it any more.")
    deleted: str | None = Field(default=None, description="Why it was deleted.")
    purged: bool = Field(default=False, description="Its blobs were given up for good.")
    gate: dict[str, JsonValue] | None = Field(
        default=None, description="The latest decision on it."
    )
    signatures: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="Sigstore bundles of its manifest by their key's fingerprint."
    )


class IndexDocument(Document):
    """models/<name>/index/<k>.json: equal versions give equal bytes, whoever writes it."""

    name: str
    versions: list[dict[str, Any]]


class PendingDocument(Document):
    """pending/<id>.json: lies there from before a registration looks for blobs to its commit."""

    created: str
    author: str
    package: str
    nonce: str
    blobs: list[str]


class SweepDocument(Document):
    """sweep.json: while `running`, and renewed by its holder, blobs are being deleted."""

    running: bool
    nonce: str
    author: str
    time: str
    history: list[dict[str, JsonValue]] = []
