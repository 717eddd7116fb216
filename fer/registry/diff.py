"""How two model packages differ: metrics, params, data, code, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fer.registry.manifest import PackageManifest
from fer.registry.versions import figures

_CODE: Final = ("git_commit", "git_changed", "versions")
_DATA: Final = ("dvc", "data")
_PARAMS: Final = ("params", "seed")


@dataclass(frozen=True)
class Change:
    """One value on both sides; None where that side has none."""

    before: Any
    after: Any

    @property
    def delta(self) -> float | None:
        """After less before where both are numbers."""
        numbers = (self.before, self.after)
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            return None
        return float(self.after - self.before)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `delta` only between numbers."""
        document = {"before": self.before, "after": self.after}
        if self.delta is not None:
            document["delta"] = round(self.delta, 9)
        return document


@dataclass(frozen=True)
class Diff:
    """What differs, by dotted name; what is equal is left out.

    Attributes:
        metrics: numbers, without the bounds of their intervals.
        params: of the training, the seed among them.
        data: hashes of the data, and the test set that the metrics are of.
        code: git commit, whether files were edited since, versions of packages.
        training: the rest of the lineage, such as epochs and devices.
        files: sha256 of the package's files.
    """

    metrics: dict[str, Change]
    params: dict[str, Change]
    data: dict[str, Change]
    code: dict[str, Change]
    training: dict[str, Change]
    files: dict[str, Change]

    @property
    def same_data(self) -> bool:
        """Whether the metrics can be compared: same data, same test set."""
        return not self.data

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        sections = ("metrics", "params", "data", "code", "training", "files")
        return {
            section: {name: one.to_dict() for name, one in getattr(self, section).items()}
            for section in sections
        } | {"same_data": self.same_data}


def compare(before: PackageManifest, after: PackageManifest) -> Diff:
    """Compare two packages: `Version.manifest`, or `ModelPackage.manifest` of a folder."""
    one, other = before.lineage, after.lineage
    rest = [name for name in {**one, **other} if name not in {*_CODE, *_DATA, *_PARAMS}]
    data = _changes(_part(one, _DATA), _part(other, _DATA))
    data |= _changes(
        _part(before.metrics, ("test_set",)),
        _part(after.metrics, ("test_set",)),
    )
    return Diff(
        metrics=_changes(figures(before.metrics), figures(after.metrics)),
        params=_changes(_part(one, _PARAMS), _part(other, _PARAMS)),
        data=data,
        code=_changes(_part(one, _CODE), _part(other, _CODE)),
        training=_changes(_part(one, rest), _part(other, rest)),
        files=_changes(
            {name: file.sha256 for name, file in before.files.items()},
            {name: file.sha256 for name, file in after.files.items()},
        ),
    )


def _part(document: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """Leaves of some keys of a JSON object by dotted name; lists are leaves."""
    found: dict[str, Any] = {}
    for name in names:
        value = document.get(name)
        if isinstance(value, Mapping):
            nested = _part(value, value)
            found |= {f"{name}.{inner}": leaf for inner, leaf in nested.items()}
        elif value is not None:
            found[name] = value
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    names = list(before) + [name for name in after if name not in before]
    return {
        name: Change(before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }
