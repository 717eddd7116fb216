"""Writing to a registry: the compare-and-swap that every change of it goes through."""

from __future__ import annotations

import getpass
import logging
import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from fer.errors import ConflictError, RegistryError
from fer.registry.catalog import Catalog
from fer.registry.documents import (
    HISTORY,
    ROOT,
    Event,
    MovingDocument,
    RootDocument,
    new_id,
    now,
)
from fer.registry.manifest import describe

_log = logging.getLogger(__name__)
TRIES: Final = 500
"""Times a lost race is run again before it is given up."""

M = TypeVar("M", bound=MovingDocument)
Change = Callable[[M | None], "tuple[dict[str, Any], dict[str, Any]] | None"]
"""From the present document: the fields that change and those of the event; None: no change."""


class Writer(Catalog):
    """A catalog that can be written to; `Registry` is the one to use."""

    def _begin_writing(self) -> None:
        # Read first: some servers make a misspelt bucket when it is written to.
        self._check_root()
        self.store.check_conditional()
        if not self._root_checked:
            try:
                self.store.create_if_absent(ROOT, RootDocument(created=now()).to_bytes())
            except ConflictError:
                self._root_checked = False
                self._check_root()

    def _ensure(self, key: str, data: bytes, *, fresh: bool = False) -> None:
        # One that is not our own mostly stands already; asking is cheaper than a refused write.
        if fresh or self.store.head(key) is None:
            try:
                self.store.create_if_absent(key, data)
            except ConflictError:
                _log.debug("%s was written by another process meanwhile", key)

    def _change(
        self,
        kind: type[M],
        key: str,
        fields: Mapping[str, Any],
        event: Mapping[str, Any],
        change: Change[M],
    ) -> tuple[M | None, bool]:
        """Compare-and-swap a document until it holds; every change is an event.

        Args:
            kind: of the document.
            key: where it lies.
            fields: those that name it, for one that does not exist yet.
            event: what every event of this change says.
            change: called anew for each try; it may refuse by raising.

        Returns:
            The document as it is now, and whether this call changed it.
        """
        self._begin_writing()
        identity = new_id()
        for attempt in range(TRIES):
            present, etag = self._read(kind, key)
            if present is not None and present.has_change(identity):
                # Our write held though its answer was lost, and others moved on from it.
                return present, True
            wanted = change(present)
            if wanted is None:
                return present, False
            document = _changed(kind, present, identity, fields, event, *wanted)
            try:
                if present is None:
                    self.store.create_if_absent(key, document.to_bytes())
                else:
                    self._ensure(present.event.key, present.event.to_bytes())
                    self.store.swap(key, document.to_bytes(), etag)
            except ConflictError:
                back_off(attempt)
                continue
            self._ensure(document.event.key, document.event.to_bytes(), fresh=True)
            return document, True
        raise ConflictError(f"Too many others change {self.url}/{key} at once. Repeat the command.")


def _changed(
    kind: type[M],
    present: M | None,
    identity: str,
    fields: Mapping[str, Any],
    common: Mapping[str, Any],
    changes: Mapping[str, Any],
    said: Mapping[str, Any],
) -> M:
    """The document after a change, with its event inside."""
    before = {} if present is None else dict(present)
    try:
        event = Event(id=identity, time=now(), author=author(), **(dict(common) | dict(said)))
        entry = event.model_dump(include={"action", "time", "version"}) | {"event": event.id}
        history = [*before.get("history", []), entry][-HISTORY:]
        generation = before.get("generation", 0) + 1
        content = before | dict(fields) | dict(changes)
        content |= {"event": event, "history": history, "generation": generation}
        return kind.model_validate(content)
    except ValidationError as error:
        raise RegistryError(
            f"This cannot be kept in the registry: {describe(error)}. Figures are plain JSON, "
            "tags are text."
        ) from None


def back_off(attempt: int) -> None:
    """Wait after a lost race, longer each time: many writers must not keep each other busy."""
    time.sleep(random.uniform(0, min(0.5, 0.01 * 2 ** min(attempt, 8))))  # noqa: S311


def author() -> str:
    """Who writes, as documents and events say it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
