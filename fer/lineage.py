"""Which commit and which data something was made from."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml

from fer.settings import settings


@dataclass(frozen=True)
class Lineage:
    """A commit and the content hashes of what DVC made."""

    commit: str | None  # None outside git, where FER_COMMIT does not name it either
    changed: bool  # tracked files differ from the commit
    outputs: dict[str, str] = field(default_factory=dict)  # path -> hash, as dvc.lock has it

    @classmethod
    def of(cls, project: Path) -> Lineage:
        """Read git and dvc.lock of a project; what is absent, or damaged, is left out.

        An image has no git: there FER_COMMIT says which commit it was built from.

        Raises:
            SettingsError: FER_COMMIT is no commit.
        """
        outputs = _recorded(project / "dvc.lock")
        commit = _git(project, "rev-parse", "HEAD")
        if commit is not None:
            edited = (_git(project, "diff", "HEAD", "--name-only", "--relative") or "").splitlines()
            # What a run of the pipeline writes itself is no edit.
            made = [PurePosixPath("dvc.lock"), *map(PurePosixPath, outputs)]
            changed = any(
                not any(PurePosixPath(path).is_relative_to(one) for one in made) for path in edited
            )
        else:
            named = settings().commit
            commit = named.removesuffix("-dirty") if named else None
            changed = bool(named) and named != commit
        return cls(commit, changed, outputs)

    @property
    def version(self) -> str:
        """The commit's first 12 digits, with `-dirty` where files were edited since."""
        if self.commit is None:
            return "no-commit"
        return self.commit[:12] + ("-dirty" if self.changed else "")

    def tags(self, *outputs: str) -> list[str]:
        """Tags for a run: its commit and the hashes of the named outputs."""
        tags = [f"commit:{self.version}"]
        for path in outputs:
            for found, digest in self.outputs.items():
                if found == path or found.startswith(path + "/"):
                    tags.append(f"{found}:{digest[:12]}")
        return tags

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything known, for a report."""
        return [("commit", self.version), *sorted(self.outputs.items())]


def _recorded(lock: Path) -> dict[str, str]:
    """Path and hash of each output that a lock file names.

    DVC empties the file before it writes it anew, so it may be cut: while a run writes it, and from
    a kill in that moment on until the next stage. That is no reason to fail for somebody who only
    asks what was there: then nothing is.
    """
    try:
        text = lock.read_text(encoding="utf-8")
        if not text.endswith("\n"):  # cut in a hash it would still be YAML
            return {}
        document = yaml.safe_load(text) or {}
        return {
            str(out["path"]): next(
                (str(out[name]) for name in ("md5", "etag", "checksum") if name in out), "?"
            )
            for stage in document.get("stages", {}).values()
            for out in stage.get("outs", [])
        }
    except (OSError, UnicodeError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
