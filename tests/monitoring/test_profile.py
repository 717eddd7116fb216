"""Profiles and their files: nothing is lost, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.monitoring.distribution import Distribution
from fer.monitoring.history import choose, read_history
from fer.monitoring.profile import VALUES, Profile, read_profile
from fer.monitoring.statistics import largest_gap


@pytest.fixture(scope="module")
def profile(usual: Path) -> Profile:
    history = read_history(usual)
    analysis = choose(history, None)
    return Profile.of(history.by(analysis), "all", analysis)


def test_everything_is_counted_once(usual: Path, profile: Profile) -> None:
    import pyarrow.parquet as pq

    rows = [row for path in (usual / "parts").iterdir() for row in pq.read_table(path).to_pylist()]
    refused = sum(pq.read_metadata(path).num_rows for path in (usual / "quarantine").iterdir())
    assert profile.pictures == len({row["uri"] for row in rows})
    assert profile.without_face == sum(row["face"] is None for row in rows)
    assert profile.faces == sum(row["face"] is not None for row in rows)
    assert profile.pictures + refused == 7 * 400
    assert (profile.quarantined, profile.runs) == (refused, 7)
    assert profile.expressions["happy"] == sum(row["expression"] == "happy" for row in rows)
    bright = [row["quality_brightness"] for row in rows if row["face"] is not None]
    assert profile.values["brightness"].mean == pytest.approx(np.mean(bright))
    assert {one.count for one in profile.values.values()} == {profile.faces}


def test_several_faces_of_a_picture_are_one_picture(usual: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fer.monitoring.history import history_of

    table = pq.read_table(next((usual / "parts").iterdir()))
    second = table.set_column(
        table.schema.get_field_index("face"),
        table.schema.field("face"),
        pa.array([None if one is None else 1 for one in table["face"].to_pylist()], pa.int32()),
    )
    both = history_of([table, second.filter(second["face"].is_valid())], [])
    analysis = choose(both, None)
    one, two = (Profile.of(found, "", analysis) for found in (history_of([table], []), both))
    assert (two.pictures, two.without_face) == (one.pictures, one.without_face)
    assert two.faces == 2 * one.faces


def test_a_baseline_file_is_the_profile(profile: Profile) -> None:
    data = profile.to_json()
    again = read_profile(data, "file")
    assert again.expressions == profile.expressions
    assert (again.pictures, again.without_face) == (profile.pictures, profile.without_face)
    assert (again.quarantined, again.runs) == (profile.quarantined, profile.runs)
    assert (again.since, again.until) == (profile.since, profile.until)
    assert again.analysis == profile.analysis
    assert list(again.values) == list(VALUES)
    for name, value in profile.values.items():
        assert again.values[name].count == value.count
        assert again.values[name].mean == pytest.approx(value.mean, rel=1e-5)
        assert largest_gap(again.values[name].values, value.values) < 0.006
    # What may lie in version control holds no address.
    assert b"file:" not in data
    assert len(data) < 60_000


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=400))
def test_a_distribution_survives_its_quantiles(sample: list[float]) -> None:
    exact = Distribution.of(sample)
    document = json.loads(json.dumps(exact.document()))
    again = Distribution.parse(document)
    assert again.count == len(sample)
    assert (np.diff(again.values) >= 0).all()
    wide = 1e-5 * max(1.0, float(np.abs(exact.values).max()))
    assert again.values[0] >= exact.values[0] - wide
    assert again.values[-1] <= exact.values[-1] + wide
    # No step of a half per cent can be off by more than the share of one observation and itself.
    for value in exact.values[:: max(1, len(sample) // 9)]:
        here = (again.values <= value + wide).mean() - (exact.values <= value + wide).mean()
        assert here >= -(0.011 + 1 / len(sample))


def test_what_is_missing_is_left_out_of_a_distribution() -> None:
    found = Distribution.of([3.0, np.nan, 1.0, np.inf])
    assert (found.count, found.mean, found.median) == (2, 2.0, 2.0)
    empty = Distribution.of([])
    assert (empty.count, empty.mean, empty.median) == (0, None, None)
    assert Distribution.parse(empty.document()).count == 0


def test_a_packages_reference_is_a_baseline(checkout: Path) -> None:
    path = checkout / "fer" / "reference_model" / "reference.json"
    found = read_profile(path.read_bytes(), "reference.json")
    document = json.loads(path.read_text())
    assert found.faces == pytest.approx(document["images"], abs=3)
    assert found.expressions["happy"] / found.faces == pytest.approx(
        document["expressions"]["happy"], abs=1e-3
    )
    assert list(found.values) == ["confidence"]
    assert found.values["confidence"].median == pytest.approx(
        document["confidence_quantiles"][10], abs=1e-3
    )
    assert (found.pictures, found.analysis) == (None, {})


def damaged(document: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(document | changes).encode()


def test_files_that_are_no_baselines_are_named(profile: Profile) -> None:
    document = profile.document()
    value = document["values"]["confidence"]
    seven = dict.fromkeys(EXPRESSIONS, 1)
    for data, message in (
        (b"\xff\xfe", "damaged"),
        (b"{", "damaged"),
        (b"[]", "schema none"),
        (damaged(document, schema="fer-baseline/9"), "schema fer-baseline/9"),
        (damaged(document, expressions={"happy": 3}), "damaged"),
        (damaged(document, expressions=seven | {"happy": -1}), "no count"),
        (damaged(document, expressions=seven | {"happy": True}), "no count"),
        (damaged(document, pictures="many"), "no count"),
        (damaged(document, since="yesterday"), "damaged"),
        (damaged(document, values={"confidence": value | {"quantiles": [2, 1]}}), "ascend"),
        (damaged(document, values={"confidence": value | {"count": 0}}), "damaged"),
        (damaged({"schema": "fer-reference/1"}), "damaged"),
        (profile.to_json()[:-40], "damaged"),
    ):
        with pytest.raises(TableError, match=message) as caught:
            read_profile(data, "here.json")
        assert "here.json" in str(caught.value)
        assert "fer drift baseline" in str(caught.value)
