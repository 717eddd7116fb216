"""The registry's store, and DVC's remote."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Final

from fer import lockfile
from fer.doctor.check import Finding
from fer.errors import FerError, NotFoundError, StoreError, UnsafeStoreError
from fer.registry.registry import Registry
from fer.settings import settings

_INSTALL_DVC: Final = "pip install 'fer-workflow[train]'"
_SKEW: Final = 60.0  # seconds; S3 refuses requests from 15 minutes on


def registry() -> list[Finding]:
    """Write, conditional write, read, list and delete, and whether the clocks agree."""
    url = settings().registry
    if url is None:
        advice = "Set FER_REGISTRY to a folder or s3://bucket/prefix."
        return [Finding("registry", "skipped", "FER_REGISTRY is not set", advice)]
    opened = Registry.open(url)
    found = [_readable(opened)]
    store = opened.store
    key = f"probes/{uuid.uuid4().hex}.json"
    try:
        store.put(key, b"{}")
    except StoreError as error:
        # Readers need no more, and many machines only read.
        text, _, advice = str(error).partition(". ")
        return [*found, Finding("registry write", "warning", f"readable only: {text}", advice)]
    stat = store.head(key)
    try:
        store.check_conditional()
        if settings().single_writer and url.startswith("s3://"):
            text = "FER_SINGLE_WRITER is set: nothing keeps two writers apart"
            advice = "Let one process write at a time; unset it on a store with conditional writes."
            found.append(Finding("registry write", "warning", text, advice))
        else:
            found.append(Finding("registry write", "ok", "conditional writes hold"))
    except UnsafeStoreError as error:
        text, _, advice = str(error).partition(". ")
        found.append(Finding("registry write", "failed", text, advice))
    try:
        store.delete(key)
    except StoreError as error:
        text = f"a probe of 2 bytes stays: {error}".partition(". ")[0]
        advice = "Writers need to delete under probes/ and pending/: see docs/registry.md."
        found.append(Finding("registry delete", "warning", text, advice))
    if stat is not None:
        found.append(clock("registry clock", stat.modified))
    return found


def _readable(opened: Registry) -> Finding:
    try:
        models = opened.models()
    except NotFoundError:
        models = []
    names = ", ".join(models[:5]) + (" ..." if len(models) > 5 else "")
    return Finding("registry", "ok", f"{opened.url}: {names or 'no model yet'}")


def clock(name: str, theirs: float) -> Finding:
    """Compare another machine's time (unix seconds) with this one's."""
    skew = time.time() - theirs
    if abs(skew) <= _SKEW:
        return Finding(name, "ok", f"agrees with this machine's within {abs(skew):.0f} s")
    ahead = "ahead" if skew > 0 else "behind"
    return Finding(
        name,
        "failed",
        f"this machine is {abs(skew):.0f} s {ahead}",
        "Set the clock (timedatectl set-ntp true): S3 refuses requests that are 15 minutes off.",
    )


def dvc_lock(folder: Path) -> list[Finding]:
    """Whether DVC can read dvc.lock."""
    if not (folder / ".dvc").is_dir():
        return [Finding("dvc lock", "skipped", f"{folder.resolve()} is no DVC project")]
    lock = folder / lockfile.NAME
    try:
        sound = lockfile.is_sound(lock)
    except ImportError:
        return [Finding("dvc lock", "skipped", "DVC is not installed", _INSTALL_DVC)]
    if sound:
        return [Finding("dvc lock", "ok", "dvc.lock is whole, or not there yet")]
    anew = "git checkout dvc.lock, or remove it"
    if lock.is_symlink():  # as in the images, which have no git; DVC refuses a link to nothing
        anew = f'echo "{lockfile.EMPTY.strip()}" > {lock.resolve()}'
    advice = (
        f"{anew}: DVC takes what was computed from its run cache. The flows do so by themselves."
    )
    return [Finding("dvc lock", "failed", "dvc.lock was cut while DVC wrote it", advice)]


def dvc_remote(folder: Path) -> list[Finding]:
    """Whether DVC's default remote answers."""
    if not (folder / ".dvc").is_dir():
        return [Finding("dvc remote", "skipped", f"{folder.resolve()} is no DVC project")]
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:
        return [Finding("dvc remote", "skipped", "DVC is not installed", _INSTALL_DVC)]
    with Repo(str(folder)) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            advice = (
                "dvc remote add --default NAME s3://bucket/prefix; without one, data stay here."
            )
            return [Finding("dvc remote", "skipped", "no default remote is set", advice)]
        try:
            odb: Any = repo.cloud.get_remote_odb()
            odb.fs.ls(odb.path) if odb.fs.exists(odb.path) else odb.fs.makedirs(odb.path)
        except (DvcException, OSError, FerError) as error:
            advice = f"dvc remote modify {name} ...; credentials are AWS_* in the environment."
            return [Finding("dvc remote", "failed", f"{name}: {error}", advice)]
        return [Finding("dvc remote", "ok", f"{name} at {odb.fs.unstrip_protocol(odb.path)}")]
