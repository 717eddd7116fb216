"""What may change about a version: tags, notes, deprecation, deletion, decisions, signatures.

A version's own document never changes; all of this lies in its state document, which moves by
compare-and-swap and is created at the first change. A deleted version keeps its number and its
record. Its blobs go with the next garbage collection after the grace period; until then it can
be restored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fer.errors import ConflictError, ModelReferenceError, NotFoundError, RegistryError
from fer.registry.catalog import in_parallel
from fer.registry.documents import Note, StateDocument, blob_key, now, state_key
from fer.registry.reference import ModelReference, check_name
from fer.registry.versions import Version, VersionState
from fer.registry.writer import Change, Writer, author

_TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TAG_VALUE: Final = 500
_NOTES: Final = 200
_NOTE: Final = 5000
_SIGNATURES: Final = 20
_UNSAID: Final = "no reason given"


class Lifecycle(Writer):
    """The changes of a version after its registration."""

    def tag(
        self, name: str, number: int, tags: Mapping[str, str], remove: tuple[str, ...] = ()
    ) -> VersionState:
        """Set tags of a version, and remove some.

        Args:
            name: the model.
            number: the version.
            tags: name -> value; names of up to 64 lower-case letters, digits and `._-`.
            remove: names to remove; one that is not set is no error.

        Raises:
            ModelReferenceError: a tag's name or value is refused.
            NotFoundError: no such version.
        """
        for tag in (*tags, *remove):
            if not _TAG.fullmatch(tag):
                raise ModelReferenceError(
                    f"{tag!r} cannot name a tag: use up to 64 lower-case letters, digits and ._-."
                )
        for tag, value in tags.items():
            if len(value) > _TAG_VALUE or not value.isprintable():
                raise ModelReferenceError(
                    f"The value of the tag {tag!r} is over {_TAG_VALUE} characters long, or has "
                    "line breaks. Shorten it, or use `fer models note`."
                )
        details = {"set": dict(tags), "removed": list(remove)}

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            before = present.tags if present else {}
            after = {tag: text for tag, text in (before | dict(tags)).items() if tag not in remove}
            return None if after == before else ({"tags": after}, {"details": details})

        return self._change_state(name, number, "tag", change)

    def note(self, name: str, number: int, text: str) -> VersionState:
        """Add a note to a version; notes are never changed.

        Raises:
            ModelReferenceError: it is empty, too long, or the 201st.
            NotFoundError: no such version.
        """
        text = text.strip()
        if not text or len(text) > _NOTE:
            raise ModelReferenceError(f"A note has 1 to {_NOTE:,} characters; this {len(text):,}.")
        written = Note(time=now(), author=author(), text=text)

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]]:
            notes = present.notes if present else ()
            if len(notes) >= _NOTES:
                raise ModelReferenceError(
                    f"{name}:{number} has {_NOTES} notes already. Keep a log elsewhere, and note "
                    "where."
                )
            return {"notes": (*notes, written)}, {"reason": text}

        return self._change_state(name, number, "note", change)

    def deprecate(self, name: str, number: int, reason: str = "") -> VersionState:
        """Say that nobody should use a version any more.

        Pulling it warns, and no alias is promoted to it; aliases that point at it stay.

        Raises:
            NotFoundError: no such version.
        """
        text = reason or _UNSAID

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            if present and present.deprecated == text:
                return None
            return {"deprecated": text}, {"reason": reason}

        return self._change_state(name, number, "deprecate", change)

    def undeprecate(self, name: str, number: int, reason: str = "") -> VersionState:
        """Take a deprecation back."""

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            if not (present and present.deprecated):
                return None
            return {"deprecated": None}, {"reason": reason}

        return self._change_state(name, number, "undeprecate", change)

    def judge(self, name: str, number: int, decision: Mapping[str, Any]) -> VersionState:
        """Record what the gate decided on a version; `promote` to champion heeds it.

        Args:
            name: the model.
            number: the version.
            decision: JSON with `passed`, and `champion` (the version it was compared with, None
                where there was none): `GateDecision.document()` and that number.

        Raises:
            NotFoundError: no such version.
            RegistryError: the decision is not plain JSON.
        """
        kept = dict(decision)
        reason = str(kept.get("text", ""))

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            if present and present.gate == kept:
                return None
            return {"gate": kept}, {"gate": kept, "reason": reason}

        return self._change_state(name, number, "gate", change)

    def add_signature(
        self, name: str, number: int, key: str, bundle: dict[str, Any]
    ) -> VersionState:
        """Keep a signature of a version's manifest; `Registry.sign` makes one.

        Args:
            name: the model.
            number: the version.
            key: fingerprint of the public key.
            bundle: the Sigstore bundle; it takes the place of an earlier one of that key.

        Raises:
            NotFoundError: no such version.
            RegistryError: it has 20 signatures already.
        """

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            before = present.signatures if present else {}
            if before.get(key) == bundle:
                return None
            if len(before) >= _SIGNATURES and key not in before:
                raise RegistryError(f"{name}:{number} has {_SIGNATURES} signatures already.")
            return {"signatures": before | {key: bundle}}, {"details": {"key": key}}

        return self._change_state(name, number, "sign", change)

    def delete(
        self, name: str, number: int, reason: str = "", *, force: bool = False
    ) -> VersionState:
        """Delete a version: listings leave it out, and nothing resolves to it.

        Its number is never given again, its record and events stay, and `restore` brings it
        back until `collect_garbage` has purged it.

        Args:
            name: the model.
            number: the version.
            reason: why; kept in the event log.
            force: also where an alias would go back to it by a rollback.

        Raises:
            RegistryError: an alias points at it.
            NotFoundError: no such version, or deleted already.
        """
        check_name(name)
        self._refuse_if_pointed_at(name, number, force)

        def change(_: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]]:
            return {"deleted": reason or _UNSAID}, {"reason": reason}

        state = self._change_state(name, number, "delete", change)
        try:
            # An alias that came meanwhile wins; one that comes from now on sees the deletion.
            self._refuse_if_pointed_at(name, number, force)
        except RegistryError:
            self._undelete(name, number, "an alias was moved to it at the same time")
            raise
        return state

    def restore(self, name: str, number: int, reason: str = "") -> VersionState:
        """Bring a deleted version back.

        Raises:
            NotFoundError: no such version, or its blobs were given up meanwhile.
        """
        version = self.resolve(ModelReference(name=check_name(name), number=number), deleted=True)
        state = self._undelete(name, number, reason)
        blobs = {version.digest, *(file.sha256 for file in version.manifest.files.values())}
        lost = [one for one in in_parallel(self._blob_is_missing, sorted(blobs)) if one]
        if lost:
            raise NotFoundError(
                f"{version} is back, but {len(lost)} of its {len(blobs)} blobs are missing. "
                "Register the package anew: that uploads what is missing."
            )
        return state

    def _blob_is_missing(self, digest: str) -> str | None:
        return digest if self.store.head(blob_key(digest)) is None else None

    def _undelete(self, name: str, number: int, reason: str) -> VersionState:
        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            if not (present and present.deleted):
                return None
            if present.purged:
                raise NotFoundError(
                    f"{name}:{number} was purged: its files are gone. Register the package anew."
                )
            return {"deleted": None}, {"reason": reason}

        return self._change_state(name, number, "restore", change, deleted=True)

    def _purge(self, name: str, number: int) -> bool:
        """Give a deleted version up for good; False where it was restored meanwhile."""

        def change(present: StateDocument | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
            if present is None or not present.deleted or present.purged:
                return None
            return {"purged": True}, {}

        return self._change_state(name, number, "purge", change, deleted=True).purged

    def _refuse_if_pointed_at(self, name: str, number: int, force: bool) -> None:
        aliases = self.aliases(name).values()
        at = [f"@{alias.alias}" for alias in aliases if alias.number == number]
        if at:
            raise RegistryError(
                f"{name}:{number} is {', '.join(at)} and cannot be deleted. Point that elsewhere "
                "first: `fer models promote`, `fer models rollback`."
            )
        back = [f"@{alias.alias}" for alias in aliases if alias.previous == number]
        if back and not force:
            raise RegistryError(
                f"A rollback of {', '.join(back)} goes to {name}:{number}. Give --force to delete "
                "it all the same."
            )

    def _change_state(
        self,
        name: str,
        number: int,
        action: str,
        change: Change[StateDocument],
        *,
        deleted: bool = False,
    ) -> VersionState:
        """Change the state of a version that exists and, unless `deleted`, is not deleted."""
        version: Version = self.resolve(
            ModelReference(name=check_name(name), number=number), deleted=True
        )

        def checked(present: StateDocument | None) -> Any:
            if present is not None and present.deleted and not deleted:
                self._check_present(name, number)
                # Restored between the two reads.
                raise ConflictError(f"{version} was just restored. Repeat the command.")
            return change(present)

        document, _ = self._change(
            StateDocument,
            state_key(name, number),
            {"name": name, "number": number},
            {"name": name, "action": action, "version": number},
            checked,
        )
        return VersionState.of(document)
