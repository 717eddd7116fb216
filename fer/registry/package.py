"""A model package: one folder, complete and self-describing.

It holds `model.onnx` or `model.tflite`, whatever else describes the model (network, weights, card,
curves), and `manifest.json` with the size and sha256 of each. Opening one checks every byte and
runs no code: nothing in it is a pickle, and nothing is imported from it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fer.errors import PackageError
from fer.expressions import EXPRESSIONS
from fer.files import sha256_of
from fer.registry.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    InputContract,
    PackageFile,
    PackageManifest,
    describe,
    file_name_problem,
)

_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelPackage:
    """A package on disk whose every file was checked when it was opened.

    Attributes:
        folder: where it lies.
        manifest: what it declares.
        digest: sha256 of manifest.json's bytes; through the file digests in there it
            identifies the whole package.
    """

    folder: Path
    manifest: PackageManifest
    digest: str

    @classmethod
    def open(
        cls, folder: Path | str, *, digest: str | None = None, hash_up_to: int | None = None
    ) -> ModelPackage:
        """Open the package in `folder`, checking size and sha256 of every file.

        Args:
            folder: the package's folder; files in it that the manifest does not name are ignored.
            digest: the digest the package must have, where the caller knows it.
            hash_up_to: of files with more bytes only the size is checked, since the caller will
                read and hash them (`check_file`); None: hash all.

        Raises:
            PackageError: absent, incomplete, altered, hostile, or of a newer schema.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not folder.is_dir() or not path.is_file():
            raise PackageError(
                f"{folder} is no model package: it has no {MANIFEST}. Name the package's folder "
                "(models/package after `dvc repro package`), or a registered model (name@champion)."
            )
        _check_regular(folder, MANIFEST)
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        manifest = PackageManifest.from_bytes(data, path)
        found = hashlib.sha256(data).hexdigest()
        if digest is not None and found != digest:
            raise PackageError(
                f"{path} has sha256 {found[:12]}..., expected {digest[:12]}...: it was altered. "
                "Get the package again from its registry."
            )
        for name, entry in manifest.files.items():
            _check_regular(folder, name)
            hashed = hash_up_to is None or entry.size <= hash_up_to
            check_file(folder / name, entry, hashed=hashed)
        return cls(folder, manifest, found)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def model(self) -> Path:
        """What predicts: model.onnx or model.tflite."""
        return self.folder / self.manifest.model

    def manifest_bytes(self) -> bytes:
        """The bytes of manifest.json, whose sha256 is `digest`.

        Raises:
            PackageError: it was altered since the package was opened.
        """
        data = (self.folder / MANIFEST).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise PackageError(f"{self.folder / MANIFEST} was altered. Get the package again.")
        return data

    def file(self, name: str) -> Path:
        """Path of one file of the package.

        Raises:
            PackageError: the manifest does not name it.
        """
        if name not in self.manifest.files:
            raise PackageError(
                f"The package {self.name!r} holds no {name!r}; it holds: "
                f"{', '.join(sorted(self.manifest.files))}."
            )
        return self.folder / name


def write_package(
    folder: Path,
    *,
    name: str,
    description: str,
    files: Mapping[str, Path],
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    classes: Sequence[str] = EXPRESSIONS,
    input_contract: InputContract | None = None,
) -> ModelPackage:
    """Write a package: copies of `files` and the manifest, whole or not at all.

    It is built in a temporary folder beside `folder` and renamed into place; an earlier package
    there is replaced. The same content gives the same digest.

    Args:
        folder: where the package will be.
        name: the model's name: lower-case letters, digits and `._-`.
        description: one or two sentences for people.
        files: name inside the package -> file to copy; one of them is the model, `model.onnx` or
            `model.tflite`.
        metrics: JSON object of evaluation figures.
        lineage: JSON object: git commit, data and params hashes, seed, hardware, versions.
        classes: class names in output order.
        input_contract: defaults to grey uint8 crops of any size.

    Raises:
        PackageError: a name is refused, a file is missing, or `folder` holds something else.
    """
    for inside, source in files.items():
        if problem := file_name_problem(inside):
            raise PackageError(f"The file name {inside!r} {problem}. Choose another.")
        if not Path(source).is_file():
            raise PackageError(f"{source}, to be packaged as {inside}, does not exist.")
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        entries = {
            inside: _copy(Path(source), building / inside) for inside, source in files.items()
        }
        try:
            manifest = PackageManifest(
                name=name,
                description=description,
                classes=tuple(classes),
                input=input_contract or InputContract(),
                files=entries,
                metrics=dict(metrics),
                lineage=dict(lineage),
            )
        except ValidationError as error:
            raise PackageError(
                f"The package {name!r} cannot be described: {describe(error)}. Correct it."
            ) from None
        data = manifest.to_bytes()
        _write_synced(building / MANIFEST, data)
        building.chmod(0o755)
        replace_folder(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return ModelPackage(folder, manifest, hashlib.sha256(data).hexdigest())


def replace_folder(new: Path, target: Path) -> None:
    """Rename the folder `new` to `target`; what was there goes, or comes back on an error."""
    if not target.is_dir() or target.is_symlink():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / "old"
    try:
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PackageError(f"{folder} is a file; a package is a folder. Choose another place.")
    if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise PackageError(
            f"{folder} holds files but no package, so it is not replaced. Empty it, or choose "
            "another place."
        )


def _copy(source: Path, target: Path) -> PackageFile:
    """Copy in blocks, hashing on the way, so that the digest is of the bytes written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            size += len(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return PackageFile(size=size, sha256=digest.hexdigest())


def _write_synced(target: Path, data: bytes) -> None:
    with target.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _check_regular(folder: Path, name: str) -> None:
    """Refuse a symlink anywhere below `folder` on the way to `name`, a pipe, a device."""
    path = folder
    segments = name.split("/")
    for number, segment in enumerate(segments, start=1):
        path = path / segment
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                raise PackageError(
                    f"{folder} lacks {name}, which its manifest names. Get the package again."
                ) from None
            raise
        expected = stat.S_ISREG(mode) if number == len(segments) else stat.S_ISDIR(mode)
        if not expected:
            raise PackageError(
                f"{path} is a symbolic link or no plain file; a package holds plain files only. "
                "Copy the file there, or get the package again."
            )


def check_file(path: Path, entry: PackageFile, *, hashed: bool = True) -> None:
    """Compare a file's size, and its sha256 where `hashed`, with the manifest's.

    Raises:
        PackageError: it was altered.
    """
    size = path.stat().st_size
    if size != entry.size:
        raise PackageError(
            f"{path} has {size:,} bytes, its manifest says {entry.size:,}. Get the package again."
        )
    if hashed and sha256_of(path) != entry.sha256:
        raise PackageError(
            f"{path} was altered: its sha256 is not the manifest's. Get the package again."
        )
