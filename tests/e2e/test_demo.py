"""`make demo`'s program, as a new user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_demo_runs_the_whole_workflow(tmp_path: Path, checkout: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "flows.demo", "--folder", str(folder)],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Next" in done.stdout
    assert (folder / "index.html").stat().st_size > 10_000
    assert (folder / "registry" / "models" / "demo" / "versions" / "1.json").exists()
    rows = [
        row for part in (folder / "results").glob("parts/*.parquet")
        for row in pq.read_table(part).to_pylist()
    ]  # fmt: skip
    faces = [row for row in rows if row["face"] is not None]
    nobody = [row for row in rows if row["face"] is None]
    assert len(faces) >= 10
    assert any("nobody" in row["uri"] for row in nobody)
    aside = [
        row["uri"] for part in (folder / "results").glob("quarantine/*.parquet")
        for row in pq.read_table(part).to_pylist()
    ]  # fmt: skip
    assert {Path(uri).name for uri in aside} == {"10-truncated.jpg", "11-no-picture.jpg"}
