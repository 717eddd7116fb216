"""The documentation says what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_generated_parts_are_up_to_date(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_commands_are_in_the_readme(checkout: Path) -> None:
    text = (checkout / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "infra/README.md"])
def test_links_inside_the_project_lead_somewhere(checkout: Path, page: str) -> None:
    import re

    folder = (checkout / page).parent
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (checkout / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_lock_names_no_index(checkout: Path) -> None:
    lock = (checkout / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index" not in lock
