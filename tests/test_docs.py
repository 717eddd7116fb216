"""The documentation says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    page.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", "infra/*.md", "benchmarks/*.md")
    for page in sorted(ROOT.glob(pattern))
]


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


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_project_lead_somewhere(checkout: Path, page: str) -> None:
    text = (checkout / page).read_text(encoding="utf-8")
    dead = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, place = link.partition("#")
        target = (checkout / page).parent / name if name else checkout / page
        if not target.exists() or (place and place not in anchors(target)):
            dead.append(link)
    assert dead == []


def anchors(page: Path) -> set[str]:
    """The places of a page that links can name, as GitHub makes them of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one).strip().lower().replace(" ", "-") for one in headings}


def test_what_operations_says_to_change_is_there(checkout: Path) -> None:
    from flows import automations

    text = (checkout / "docs" / "operations.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"### Changing them\n(.*?)\n## ", text, re.DOTALL)
    names = set(re.findall(r"`(?!PREFECT_)([A-Z_]+)`", section))
    assert {name for name in names if not hasattr(automations, name)} == set()
    assert "MOST_TRIES" in names


def test_the_lock_names_no_index(checkout: Path) -> None:
    lock = (checkout / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index" not in lock
