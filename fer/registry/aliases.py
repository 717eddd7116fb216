"""Moving aliases: champion, challenger and any other, by compare-and-swap.

What the gate decided on a version (`Lifecycle.judge`) is heeded here: one that did not pass
becomes champion by force alone, and the event of that move says so for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fer.errors import ConflictError, GateError, NotFoundError, RegistryError
from fer.registry.documents import AliasDocument, alias_key
from fer.registry.lifecycle import Lifecycle
from fer.registry.reference import DEFAULT_ALIAS, ModelReference, check_alias, check_name
from fer.registry.versions import Alias, Version


class AliasMover(Lifecycle):
    """Promotion and rollback."""

    def promote(
        self,
        name: str,
        number: int,
        alias: str = DEFAULT_ALIAS,
        reason: str = "",
        gate: dict[str, Any] | None = None,
        *,
        expected: int | None = None,
        force: bool = False,
    ) -> Alias:
        """Point an alias at a version, and record it.

        Champion becomes only what the gate let pass, where it was asked: a version whose recorded
        decision (see `judge`) failed, or was taken against another champion, is refused. With
        `force` it is promoted all the same, and the event says so for ever.

        Args:
            name: the model.
            number: the version.
            alias: `champion`, `challenger` or any other.
            reason: why; kept in the event log.
            gate: the decision's figures as JSON, kept in the event log; None takes the recorded
                decision.
            expected: move only while the alias points at this version (0: does not exist).
            force: whatever the gate said; also a deprecated version.

        Raises:
            NotFoundError: no such version.
            ConflictError: the alias does not point at `expected`.
            GateError: the gate did not let it pass.
            RegistryError: the version is deprecated.
        """
        check_alias(alias, movable=True)
        target = self.resolve(ModelReference(name=check_name(name), number=number))
        state = self.state(name, number)
        if state.deprecated and not force:
            raise RegistryError(
                f"{target} is deprecated ({state.deprecated}). Promote another version, take that "
                f"back with `fer models deprecate {target} --undo`, or give --force."
            )
        figures = gate if gate is not None else state.gate
        forced = force and bool(state.deprecated)

        def choose(present: AliasDocument | None) -> tuple[Version, bool]:
            at = present.version if present else 0
            if expected is not None and at != expected:
                raise ConflictError(
                    f"{name}@{alias} points at version {at or 'none'}, not at {expected}: somebody "
                    "moved it. Look at it with `fer models show` and decide again."
                )
            if alias != DEFAULT_ALIAS or at == number:
                return target, forced
            problem = _gate_problem(target, figures, at or None)
            if problem and not force:
                raise GateError(
                    f"{problem} Judge it with `fer models gate {target}`, or give --force, which "
                    "the event log will say for ever."
                )
            # Force that had nothing to overcome, for nobody asked the gate, is said too.
            return target, force and (bool(problem) or figures is None or forced)

        return self._point(name, alias, "promote", reason, figures, choose)

    def rollback(self, name: str, alias: str = DEFAULT_ALIAS, reason: str = "") -> Alias:
        """Point an alias back at the version it pointed at before; twice returns.

        Raises:
            NotFoundError: no such alias, it never pointed elsewhere, or that was deleted.
        """
        check_alias(alias, movable=True)
        check_name(name)

        def choose(present: AliasDocument | None) -> tuple[Version, bool]:
            if present is None:
                raise self._no_alias(name, alias)
            if present.previous is None:
                raise NotFoundError(
                    f"{name}@{alias} has pointed at version {present.version} alone, so there is "
                    "nothing to go back to. Promote another version instead."
                )
            return self.resolve(ModelReference(name=name, number=present.previous)), False

        return self._point(name, alias, "rollback", reason, None, choose)

    def _point(
        self,
        name: str,
        alias: str,
        action: str,
        reason: str,
        gate: dict[str, Any] | None,
        choose: Callable[[AliasDocument | None], tuple[Version, bool]],
    ) -> Alias:
        """Move an alias to what `choose` says of the present one; its second value is `forced`."""

        def change(present: AliasDocument | None) -> tuple[dict[str, Any], dict[str, Any]]:
            target, forced = choose(present)
            at = present.version if present else None
            # Moving to where it points keeps its predecessor.
            stays = present is not None and present.version == target.number
            previous = present.previous if present is not None and stays else at
            changes = {"version": target.number, "digest": target.digest, "previous": previous}
            said = {"version": target.number, "previous": at, "forced": forced}
            return changes, said

        document, _ = self._change(
            AliasDocument,
            alias_key(name, alias),
            {"name": name, "alias": alias},
            {"name": name, "action": action, "alias": alias, "reason": reason, "gate": gate},
            change,
        )
        assert document is not None  # noqa: S101 - a change of an alias always makes one
        if self.state(name, document.version).deleted:
            # Deleted between our reading and our move: what an alias points at is not deleted.
            self._undelete(name, document.version, f"promoted as @{alias} at the same time")
        return Alias.of(document)


def _gate_problem(target: Version, figures: dict[str, Any] | None, champion: int | None) -> str:
    """Why the gate does not let `target` become champion in place of `champion`, or ""."""
    if figures is None:
        return ""
    if figures.get("passed") is False:
        return f"{target} did not pass the gate: {figures.get('text') or 'see its events'}"
    if "champion" in figures and figures["champion"] != champion:
        against = f"version {figures['champion']}" if figures["champion"] else "no champion"
        return (
            f"{target} passed the gate against {against}, but the champion is now "
            f"{f'version {champion}' if champion else 'none'}."
        )
    return ""
