"""The model that ships, registered, and a schedule that takes it over real photographs in a bucket.

PostgreSQL, an S3 server, a Prefect server and its workers, as `make up` starts them.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from services import place_for_services

from fer.inference.outputs import BucketOutput
from fer.reference import FOLDER as SHIPPED
from flows.local.up import BUCKET, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

# How many faces are in each, as people count them; of obama-partial's, half is outside.
FACES = {
    "obama-720p.jpg": 1,
    "obama-serious.jpg": 1,
    "obama-partial.jpg": 1,
    "biden.jpg": 1,
    "two-people.jpg": 2,
    "obama-and-biden.jpg": 3,
    "astronaut.png": 1,
    "grace_hopper.jpg": 1,
    "huge.png": 1,
    "coffee.png": 0,
    "chelsea.png": 0,
    "rocket.jpg": 0,
}
SMILING = {"astronaut.png", "huge.png", "obama-720p.jpg"}
BAD = {"truncated.jpg", "text.jpg"}


@pytest.fixture(scope="module")
def photographs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files by name: portraits and groups, some without a face, a huge one, two damaged."""
    media = shared / "media"
    found = {path.name: path.read_bytes() for path in media.glob("*.[jp][pn]g")}
    for package, name in (
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        *(("skimage", f"data/{one}") for one in ("coffee.png", "chelsea.png", "rocket.jpg")),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed, whose photographs this uses")
        path = Path(spec.origin).parent / name
        found[path.name] = path.read_bytes()
    astronaut = cv2.imread(str(media / "astronaut.png"))
    huge = tmp_path_factory.mktemp("huge") / "huge.png"
    cv2.imwrite(str(huge), cv2.resize(astronaut, (6400, 6400)))  # 41 megapixels
    found["huge.png"] = huge.read_bytes()
    found["truncated.jpg"] = found["biden.jpg"][: len(found["biden.jpg"]) // 3]
    found["text.jpg"] = b"This is no photograph.\n" * 100
    assert set(found) == set(FACES) | BAD
    return found


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The services, with the shipped model as champion of the registry in their bucket."""
    with place_for_services() as folder:
        services = Stack(folder)
        services.up()
        yield services
        services.down(purge=True)  # by whoever started them, and so knows that they have ended


def fer(stack: Stack, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fer", *arguments],
        env=os.environ | stack.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def next_run(stack: Stack, known: set[str]) -> dict[str, Any]:
    """The next run that the schedule starts, once it has ended."""
    body = {"deployments": {"name": {"any_": ["batch"]}}, "sort": "EXPECTED_START_TIME_ASC"}
    deadline = time.monotonic() + 600
    while True:
        for run in stack.ask("/flow_runs/filter", body) or []:
            if run["id"] not in known and run["state_type"] in ("COMPLETED", "FAILED", "CRASHED"):
                known.add(run["id"])
                assert run["state_type"] == "COMPLETED", run["state"]["message"]
                assert run["auto_scheduled"]
                return dict(run)
        assert time.monotonic() < deadline, stack.processes.last_words("worker-cpu")
        time.sleep(1)


def rows(folder: str) -> list[dict[str, Any]]:
    """All results, or the quarantine, from the bucket."""
    output = BucketOutput(f"s3://{BUCKET}/results/")
    parts = [pq.read_table(io.BytesIO(output.read(name))) for name in output.names(folder)]
    return pa.concat_tables(parts).to_pylist()


def test_a_schedule_takes_the_champion_over_real_photographs(
    stack: Stack, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.s3.environment().items():
        monkeypatch.setenv(name, value)
    version = json.loads(fer(stack, "models", "register", str(SHIPPED), "--json"))
    reference = f"{version['name']}:{version['version']}"
    fer(stack, "models", "promote", reference, "--force", "--reason", "a first model")
    place = BucketOutput(f"s3://{BUCKET}/photographs/")
    for name, data in photographs.items():
        place.write(name, data)

    batch = stack.ask("/deployments/name/batch-inference/batch")
    every_minute = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    stack.ask(f"/deployments/{batch['id']}/schedules", [every_minute])
    seen: set[str] = set()
    first = next_run(stack, seen)
    assert f"model:{reference}" in first["tags"]
    assert f"{len(photographs)} pictures: {len(FACES)} analysed" in first["state"]["message"]

    results = rows("parts")
    assert {row["model_digest"] for row in results} == {version["digest"]}
    found = Counter(Path(row["uri"]).name for row in results if row["face"] is not None)
    assert found == Counter({name: count for name, count in FACES.items() if count})
    without = {Path(row["uri"]).name for row in results if row["face"] is None}
    assert without == {name for name, count in FACES.items() if not count}
    for row in results:
        if Path(row["uri"]).name in SMILING:
            assert row["expression"] == "happy", row
    (huge,) = (row for row in results if row["uri"].endswith("huge.png"))
    assert (huge["width"], huge["height"]) == (6400, 6400)
    reasons = {Path(row["uri"]).name: row["reason"] for row in rows("quarantine")}
    assert set(reasons) == BAD

    place.write("later.png", photographs["astronaut.png"])
    while "1 analysed with 1 faces" not in (message := next_run(stack, seen)["state"]["message"]):
        assert "0 analysed" in message  # one that began before the new picture
    assert f"{len(photographs)} done before" in message
