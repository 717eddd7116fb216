"""Checking a whole registry: every document, every alias, every blob once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from fer.errors import NotFoundError, RegistryError, UnavailableError
from fer.registry.catalog import Catalog, in_parallel
from fer.registry.documents import (
    ROOT,
    AliasDocument,
    Document,
    Event,
    IndexDocument,
    RootDocument,
    StateDocument,
    VersionDocument,
    alias_key,
    blob_key,
    version_key,
)
from fer.registry.manifest import PackageFile
from fer.registry.progress import transfer_bar
from fer.registry.store import Progress
from fer.registry.verify import blob_problem
from fer.registry.versions import read_summary

_READERS: Final = 4
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Finding:
    """Something wrong: where, what, and what to do about it."""

    key: str
    problem: str
    advice: str


@dataclass(frozen=True)
class AuditReport:
    """What was read, and all that was wrong with it.

    Attributes:
        size: bytes of the blobs that versions name.
    """

    url: str
    models: int
    versions: int
    blobs: int
    size: int
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"ok": self.ok}


class Audit:
    """One audit under way."""

    def __init__(self, catalog: Catalog, *, progress: bool = False) -> None:
        self.catalog = catalog
        self.store = catalog.store
        self.progress = progress
        self.findings: list[Finding] = []
        self.versions = 0
        self._needed: dict[str, tuple[PackageFile | None, list[str]]] = {}

    def run(self) -> AuditReport:
        """Read everything.

        Raises:
            StoreError: the store cannot be read.
            RegistryError: it is no registry, or one of a newer schema.
        """
        self.catalog._check_root()
        models = sorted(self.store.folders("models/"))
        if models:
            self._document(RootDocument, ROOT)
        for name in models:
            self._model(name)
        self._check_blobs()
        return AuditReport(
            url=self.catalog.url,
            models=len(models),
            versions=self.versions,
            blobs=len(self._needed),
            size=sum(entry.size for entry, _ in self._needed.values() if entry),
            findings=sorted(self.findings, key=lambda finding: finding.key),
        )

    def _model(self, name: str) -> None:
        numbers = self.catalog._present_numbers(name)
        keys = {version_key(name, number): number for number in numbers}
        versions = {
            keys[key]: document for key, document in self._documents(VersionDocument, keys).items()
        }
        self.versions += len(numbers)
        for gap in sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers)):
            self._find(
                version_key(name, gap),
                "it is missing, though later versions exist",
                "Restore it from a backup; versions are never removed, only marked as deleted.",
            )
        for number, document in versions.items():
            if (document.name, document.number) != (name, number):
                self._find(
                    version_key(name, number),
                    f"it describes {document.name}:{document.number}",
                    "It was copied or altered: restore it from a backup.",
                )
        states = self._states(name, numbers)
        for number, document in versions.items():
            if number not in states or not states[number].purged:
                self._need(document)
        self._aliases(name, versions, states, set(numbers))
        self._derived(name, versions)

    def _states(self, name: str, numbers: list[int]) -> dict[int, StateDocument]:
        prefix = f"models/{name}/states/"
        found = self._documents(StateDocument, self._keys(prefix))
        for key, state in found.items():
            if state.number not in numbers or state.name != name:
                self._find(
                    key,
                    f"it is about {state.name}:{state.number}, which does not exist",
                    "Restore that version's document from a backup.",
                )
        return {state.number: state for state in found.values()}

    def _aliases(
        self,
        name: str,
        versions: dict[int, VersionDocument],
        states: dict[int, StateDocument],
        present: set[int],
    ) -> None:
        prefix = f"models/{name}/aliases/"
        for key, alias in self._documents(AliasDocument, self._keys(prefix)).items():
            mend = (
                f"Point it elsewhere: `fer models promote {name}:<version> --alias {alias.alias}`."
            )
            if key != alias_key(name, alias.alias) or alias.name != name:
                self._find(
                    key, f"it describes {alias.name}@{alias.alias}", "It was copied. " + mend
                )
            elif alias.version not in present and not self._came_meanwhile(name, alias.version):
                self._find(key, f"it points at version {alias.version}, which does not exist", mend)
            elif alias.version in states and states[alias.version].deleted:
                self._find(key, f"it points at version {alias.version}, which was deleted", mend)
            elif alias.version in versions and versions[alias.version].digest != alias.digest:
                self._find(
                    key,
                    f"it names another digest than version {alias.version} has",
                    "One of the two was altered: `fer models show` says when each was written. "
                    + mend,
                )
            if alias.previous is not None and not (
                alias.previous in present or self._came_meanwhile(name, alias.previous)
            ):
                self._find(
                    key,
                    f"a rollback would go to version {alias.previous}, which does not exist",
                    "Promote another version, so that a rollback has somewhere to go.",
                )

    def _came_meanwhile(self, name: str, number: int) -> bool:
        """Whether a version was registered after the versions were listed."""
        return self.store.head(version_key(name, number)) is not None

    def _derived(self, name: str, versions: dict[int, VersionDocument]) -> None:
        """Events, and the index: what cannot be read, or says something else."""
        self._documents(Event, self._keys(f"models/{name}/events/"))
        index = self._documents(IndexDocument, self._keys(f"models/{name}/index/"))
        for key, document in index.items():
            try:
                summaries = [read_summary(record) for record in document.versions]
            except (KeyError, TypeError, ValueError):
                summaries = None
            if summaries is None or any(
                one.number in versions and versions[one.number].digest != one.digest
                for one in summaries
            ):
                self._find(
                    key,
                    "it does not sum up the versions as they are",
                    "Delete it: listings do without, and `fer models gc --apply` writes it anew.",
                )

    def _need(self, document: VersionDocument) -> None:
        user = f"{document.name}:{document.number}"
        self._needed.setdefault(document.digest, (None, []))[1].append(user)
        for entry in document.package.files.values():
            self._needed.setdefault(entry.sha256, (entry, []))[1].append(user)

    def _check_blobs(self) -> None:
        total = sum(entry.size for entry, _ in self._needed.values() if entry)
        with transfer_bar("Verifying", total, self.progress) as moved:

            def check(digest: str) -> None:
                entry, users = self._needed[digest]
                problem = self._blob_problem(digest, entry, moved)
                if problem is None:
                    return
                more = f" and {len(users) - 3} more" if len(users) > 3 else ""
                self._find(
                    blob_key(digest),
                    f"{problem}; needed by {', '.join(users[:3])}{more}",
                    "Restore it from a backup, or delete it and register the package anew.",
                )

            in_parallel(check, sorted(self._needed), workers=_READERS)

    def _blob_problem(self, digest: str, entry: PackageFile | None, moved: Progress) -> str | None:
        if entry is None:
            # A manifest: its size is nowhere but in itself.
            stat = self.store.head(blob_key(digest))
            if stat is None:
                return "it is missing"
            entry = PackageFile(size=stat.size, sha256=digest)
        return blob_problem(self.store, entry, moved)

    def _keys(self, prefix: str) -> list[str]:
        return sorted(stat.key for stat in self.store.list(prefix))

    def _documents(self, kind: type[D], keys: Iterable[str]) -> dict[str, D]:
        """Those that can be read, by key; each other one is a finding."""
        keys = list(keys)
        found = in_parallel(lambda key: self._document(kind, key), keys)
        return {
            key: document for key, document in zip(keys, found, strict=True) if document is not None
        }

    def _document(self, kind: type[D], key: str) -> D | None:
        try:
            return kind.from_bytes(self.store.get(key).data, key)
        except NotFoundError:
            problem = "it is missing"
        except UnavailableError:
            raise
        except RegistryError as error:
            problem = str(error).partition(". Check that")[0].removeprefix(f"{key} is ")
        self._find(key, problem, "Restore it from a backup.")
        return None

    def _find(self, key: str, problem: str, advice: str) -> None:
        self.findings.append(Finding(key, problem, advice))


def audit(catalog: Catalog, *, progress: bool = False) -> AuditReport:
    """Read a whole registry: see `Registry.audit`."""
    return Audit(catalog, progress=progress).run()
