"""dvc.lock after a kill in the moment in which DVC was writing it.

DVC empties the file before it writes it anew, so a kill in between leaves it empty or cut, and from
then on every DVC command refuses it. Nothing that was computed is lost: the run cache knows each
stage's outputs by what they were made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer.files import write_bytes, write_text

NAME: Final = "dvc.lock"
EMPTY: Final = "schema: '2.0'\n"
"""One of no stage. Not none at all: a link to nothing is no lock file to DVC, and it refuses it."""
KEPT: Final = Path(".dvc/tmp/fer-kept")
"""Folder of the last sound dvc.lock that was seen of each project, below DVC's root."""


def is_sound(path: Path) -> bool:
    """Whether DVC can read a lock file; one that does not exist is sound, too."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        data = path.read_bytes()
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(data) or {})
    except FileNotFoundError:
        return True
    except (yaml.YAMLError, Invalid):
        return False
    # Cut in the middle of a digest it may still be YAML; cut between two stages it is sound.
    return data.endswith(b"\n")


def kept_copy(project: Path, root: Path) -> Path:
    """Where the copy of a project's dvc.lock is kept; `root` is the folder with `.dvc`.

    Not in the project: a folder `.dvc` there would make it a root of its own, without the cache and
    the settings of the real one.
    """
    return root / KEPT / project.resolve().relative_to(root.resolve()) / NAME


def mend(project: Path, root: Path) -> str | None:
    """Keep a copy of a sound dvc.lock, or put the copy in the place of a damaged one.

    Nobody else may be writing the project. Without a copy the file is replaced by one of no stage:
    DVC then takes the outputs of each from its run cache, or makes them again.

    Args:
        project: folder of dvc.lock.
        root: the folder with `.dvc` that it is in.

    Returns:
        What was done about a damaged file; None where there was none.
    """
    # In the images it is a link from a folder that nobody may write to the file on the volume.
    lock, kept = (project / NAME).resolve(), kept_copy(project, root)
    if is_sound(lock):
        if lock.exists() and not (kept.exists() and kept.read_bytes() == lock.read_bytes()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, lock.read_bytes())
        return None
    if kept.exists() and is_sound(kept):
        write_bytes(lock, kept.read_bytes())
        return f"{NAME} was cut while DVC wrote it; the last one before that is back."
    write_text(lock, EMPTY)
    return f"{NAME} was cut while DVC wrote it, and is made anew from DVC's run cache."
