"""Model packages and the registry that keeps them in a folder or a bucket.

`Registry.open()` registers, promotes and pulls; `ModelPackage.open()` reads a package;
`write_package()` writes one; `pull()` turns a reference into a package. Nothing is imported
before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.registry.audit import AuditReport, Finding
    from fer.registry.diff import Diff, compare
    from fer.registry.documents import Event
    from fer.registry.garbage import GarbageReport
    from fer.registry.manifest import InputContract, PackageFile, PackageManifest
    from fer.registry.package import ModelPackage, write_package
    from fer.registry.reference import ModelReference
    from fer.registry.registry import Registry, pull
    from fer.registry.verify import VerifyReport
    from fer.registry.versions import Alias, Version, VersionState, VersionSummary

__all__ = [
    "Alias",
    "AuditReport",
    "Diff",
    "Event",
    "Finding",
    "GarbageReport",
    "InputContract",
    "ModelPackage",
    "ModelReference",
    "PackageFile",
    "PackageManifest",
    "Registry",
    "VerifyReport",
    "Version",
    "VersionState",
    "VersionSummary",
    "compare",
    "pull",
    "write_package",
]

_HOMES = {
    "Alias": "versions",
    "AuditReport": "audit",
    "Diff": "diff",
    "Event": "documents",
    "Finding": "audit",
    "GarbageReport": "garbage",
    "InputContract": "manifest",
    "ModelPackage": "package",
    "ModelReference": "reference",
    "PackageFile": "manifest",
    "PackageManifest": "manifest",
    "Registry": "registry",
    "VerifyReport": "verify",
    "Version": "versions",
    "VersionState": "versions",
    "VersionSummary": "versions",
    "compare": "diff",
    "pull": "registry",
    "write_package": "package",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
