"""Files written whole or not at all, and digests of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


@contextmanager
def atomic_paths(*targets: Path, mode: int = 0o644) -> Iterator[list[Path]]:
    """Yield a temporary path beside each target; on success they replace the targets.

    Nothing is replaced before everything is written and on the disk: an error (a full disk, an
    exception, ctrl-C) leaves every target as it was, and no temporary file. Nobody else can read a
    temporary file; a target has `mode` from its first moment.
    """
    with ExitStack() as cleaning:
        temporaries = []
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            os.close(descriptor)
            temporary = Path(name)
            cleaning.callback(temporary.unlink, missing_ok=True)
            temporaries.append(temporary)
        with naming(targets[0].parent):
            yield temporaries
            for temporary in temporaries:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.chmod(mode)
        for temporary, target in zip(temporaries, targets, strict=True):
            temporary.replace(target)


@contextmanager
def atomic_path(target: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`.

    A reader sees the old file or the new one, never a part. On an error (a full disk, an
    exception, ctrl-C) the temporary file goes and `target` stays as it was.
    """
    with atomic_paths(target, mode=mode) as (temporary,):
        yield temporary


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Let a failing write say where: Python names a file that cannot be opened, not a full one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(place)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, made if absent; wait while another process holds it.

    The lock goes with its process, however that ends; the file stays.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_bytes(target: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `target`, whole or not at all."""
    with atomic_path(target, mode=mode) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str, *, mode: int = 0o644) -> None:
    """Write UTF-8 `text` to `target`, whole or not at all."""
    write_bytes(target, text.encode(), mode=mode)


def json_text(document: Any) -> str:
    """`document` as indented JSON with sorted keys: equal content, equal text.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
    """
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(target: Path, document: Any, *, mode: int = 0o644) -> None:
    """Write `json_text(document)`, whole or not at all."""
    write_text(target, json_text(document), mode=mode)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
