"""dvc.lock after a kill in the moment in which DVC was writing it.

DVC empties the file before it writes it anew, so a kill in between leaves it empty or cut, and from
then on every DVC command refuses it. Nothing that was computed is lost: the run cache knows each
stage's outputs by what they were made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer.files import write_bytes

NAME: Final = "dvc.lock"
KEPT: Final = Path(".dvc/tmp/dvc.lock.kept")
"""The last sound dvc.lock that was seen, below the project."""


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


def mend(project: Path) -> str | None:
    """Keep a copy of a sound dvc.lock, or put the copy in the place of a damaged one.

    Nobody else may be writing the project. Without a copy the damaged file goes: DVC then takes the
    outputs of each stage from its run cache, or makes them again.

    Returns:
        What was done about a damaged file; None where there was none.
    """
    lock, kept = project / NAME, project / KEPT
    if is_sound(lock):
        if lock.exists() and not (kept.exists() and kept.read_bytes() == lock.read_bytes()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, lock.read_bytes())
        return None
    if kept.exists() and is_sound(kept):
        write_bytes(lock, kept.read_bytes())
        return f"{NAME} was cut while DVC wrote it; the last one before that is back."
    lock.unlink()
    return f"{NAME} was cut while DVC wrote it, and is made anew from DVC's run cache."
