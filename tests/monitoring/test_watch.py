"""Drift is found where the population changed, and only there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer.errors import StoreError, TableError, UsageError
from fer.monitoring.history import Period, choose, moment, read_history
from fer.monitoring.watch import Drift, watch, write_baseline
from fer.params import MonitoringParams

Write = Callable[..., None]
PARAMS = MonitoringParams()
LATER = 30  # days after the first results: far from the three weeks of `usual`
START = moment("2026-03-02T12:00")
DARK = {"brightness": 90.0}


def drifted(found: Drift) -> set[str]:
    return {line.name for line in found.comparison.drifted}


def verdict(found: Drift) -> str:
    return found.comparison.verdict


class TestVerdicts:
    @pytest.mark.parametrize("seed", range(8))
    def test_the_same_population_again_is_steady(
        self, results: Path, write: Write, seed: int
    ) -> None:
        write(results, LATER, seed=1000 + seed)
        found = watch(results, PARAMS)
        assert verdict(found) == "steady"
        assert found.comparison.now.runs == 1
        assert len(found.comparison.lines) == 16
        assert "none beyond" in found.comparison.text

    @pytest.mark.parametrize(
        ("change", "lines"),
        [
            (DARK, {"brightness"}),
            ({"size": 60.0}, {"face size"}),
            ({"without": 0.3}, {"without a face"}),
            ({"refused": 0.15}, {"quarantined"}),
            ({"sure": 3.0}, {"confidence", "entropy"}),
            (
                {"shares": (0.12, 0.02, 0.10, 0.10, 0.40, 0.10, 0.16)},
                {"expressions", "share of happy", "share of sad"},
            ),
            # A rare class hardly moves the index.
            ({"shares": (0.12, 0.11, 0.10, 0.29, 0.12, 0.10, 0.16)}, {"share of disgust"}),
        ],
        ids=lambda one: "+".join(one) if isinstance(one, dict) else "",
    )
    def test_what_changed_is_named(
        self, results: Path, write: Write, change: dict[str, Any], lines: set[str]
    ) -> None:
        write(results, LATER, seed=5, pictures=800, **change)
        found = watch(results, PARAMS)
        assert verdict(found) == "drift"
        assert lines <= drifted(found)
        assert found.comparison.text.startswith("Drift: ")
        # What was not touched is not accused.
        assert "sharpness" not in drifted(found)
        assert "detection score" not in drifted(found)

    def test_the_farthest_comes_first(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, pictures=800, brightness=80.0, without=0.2)
        found = watch(results, PARAMS)
        assert found.comparison.drifted[0].name == "brightness"
        assert found.comparison.text.startswith("Drift: brightness 12")

    def test_a_small_change_of_very_many_faces_is_no_drift(
        self, results: Path, write: Write
    ) -> None:
        write(results, LATER, seed=6, pictures=6000, brightness=128.0)
        found = watch(results, PARAMS)
        line = next(one for one in found.comparison.lines if one.name == "brightness")
        assert line.probability is not None
        assert line.effect is not None
        assert 0.03 < line.effect < 0.15
        assert verdict(found) == "steady"

    def test_thresholds_decide(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, **DARK)
        patient = PARAMS.model_copy(update={"max_ks": 0.9})
        assert verdict(watch(results, patient)) == "steady"
        # A large effect that chance reaches easily is none either.
        strict = PARAMS.model_copy(update={"significance": 1e-300})
        assert verdict(watch(results, strict)) == "steady"

    def test_too_few_faces_are_not_judged(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, pictures=150, **DARK)
        found = watch(results, PARAMS)
        assert verdict(found) == "too few to tell"
        assert {line.verdict for line in found.comparison.lines} == {"too few to tell"}
        assert {line.effect for line in found.comparison.lines} == {None}
        assert "at least 200" in found.comparison.text

    def test_pictures_that_hold_no_face_any_more_are_drift(
        self, results: Path, write: Write
    ) -> None:
        write(results, LATER, seed=5, without=1.0)
        found = watch(results, PARAMS)
        assert drifted(found) == {"without a face"}
        assert found.comparison.now.faces == 0

    def test_many_windows_of_one_population_raise_no_alarm(
        self, results: Path, write: Write
    ) -> None:
        days = [LATER + 2 * number for number in range(10)]
        for day in days:
            write(results, day, seed=2000 + day, pictures=300, parts=1)
        ends = [START + timedelta(days=day + 1) for day in days]
        assert [verdict(watch(results, PARAMS, days=1, until=end)) for end in ends] == (
            ["steady"] * len(days)
        )


class TestWindows:
    def test_the_first_faces_are_the_baseline_and_never_looked_at(self, results: Path) -> None:
        found = watch(results, PARAMS, days=1000)
        baseline, now = found.comparison.baseline, found.comparison.now
        assert 1000 <= baseline.faces < 1200
        assert baseline.since == START
        assert now.since is not None
        assert baseline.until is not None
        assert now.since > baseline.until
        whole = read_history(results)
        assert baseline.faces + now.faces == whole.faces
        assert (baseline.quarantined or 0) + (now.quarantined or 0) == whole.refused.num_rows

    def test_an_unfinished_baseline_judges_nothing(self, results: Path) -> None:
        many = PARAMS.model_copy(update={"baseline_faces": 100_000})
        found = watch(results, many)
        assert verdict(found) == "too few to tell"
        assert "100,000" in found.comparison.baseline.title
        assert found.comparison.now.pictures == 0

    def test_days_runs_and_until(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, **DARK)
        write(results, LATER + 3, seed=6, **DARK)
        assert watch(results, PARAMS, days=1).comparison.now.runs == 1
        assert watch(results, PARAMS).comparison.now.runs == 2
        assert watch(results, PARAMS, runs=1).comparison.now.runs == 1
        assert watch(results, PARAMS, runs=3).comparison.now.runs == 3
        before = watch(results, PARAMS, until=START + timedelta(days=LATER - 1))
        assert verdict(before) == "steady"
        assert before.comparison.now.until == START + timedelta(days=18, minutes=1)

    def test_a_period_is_the_baseline(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, **DARK)
        write(results, LATER + 1, seed=6, **DARK)
        assert verdict(watch(results, PARAMS)) == "drift"
        period = Period(START + timedelta(days=LATER), START + timedelta(days=LATER, hours=1))
        found = watch(results, PARAMS, baseline_period=period)
        assert verdict(found) == "steady"
        assert found.comparison.now.runs == 1

    def test_a_kept_baseline_is_found_and_outlives_the_results(
        self, results: Path, write: Write
    ) -> None:
        write(results, LATER, seed=5, **DARK)
        first = watch(results, PARAMS)
        profile, where = write_baseline(results, PARAMS)
        assert Path(where.removeprefix("file://")).is_file()
        for part in results.glob("*/part-af-0000[0-9].*"):
            part.unlink()
        again = watch(results, PARAMS)
        assert again.comparison.baseline.faces == profile.faces
        assert drifted(again) == drifted(first)
        for one, other in zip(first.comparison.lines, again.comparison.lines, strict=True):
            assert one.effect == pytest.approx(other.effect, abs=0.01)

    def test_a_baseline_file_elsewhere(self, results: Path, write: Write, tmp_path: Path) -> None:
        file = tmp_path / "kept" / "usual.json"
        write_baseline(results, PARAMS, out=file, period=Period(None, START + timedelta(days=9)))
        assert not (results / "baselines").exists()
        write(results, LATER, seed=5, **DARK)
        found = watch(results, PARAMS, baseline=file)
        assert drifted(found) == {"brightness"}
        assert "usual.json" in found.comparison.baseline.title

    def test_the_packages_reference_compares_shares_and_confidence(
        self, results: Path, checkout: Path
    ) -> None:
        reference = checkout / "fer" / "reference_model" / "reference.json"
        found = watch(results, PARAMS, baseline=reference)
        names = [line.name for line in found.comparison.lines]
        assert len(names) == 9
        assert names[0] == "expressions"
        assert names[-1] == "confidence"
        assert "confidence" in drifted(found)  # these are drawn far surer than FER2013 allows


class TestModels:
    def test_a_new_version_has_a_baseline_of_its_own(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, model="b", version=2, pictures=1300, **DARK)
        write(results, LATER + 1, seed=6, model="b", version=2, **DARK)
        found = watch(results, PARAMS)
        assert (found.analysis.name, found.analysis.version) == ("m", 2)
        assert [str(one) for one in found.others] == ["m:1"]
        # The old version's photographs were lighter; that is not the new one's drift.
        assert verdict(found) == "steady"
        assert found.comparison.baseline.since == START + timedelta(days=LATER)

    def test_a_version_is_named(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, model="b", version=2)
        write(results, LATER, seed=7, model="c", version=None)
        for name, version in (("m:1", 1), ("a" * 12, 1), ("m:2", 2), ("c" * 8, None)):
            assert watch(results, PARAMS, model=name).analysis.version == version
        for wrong in ("m:9", "x", "aaa"):
            with pytest.raises(UsageError, match=r"no results of .*m:2, m:1|m:cccc"):
                watch(results, PARAMS, model=wrong)

    def test_other_faces_params_are_another_population(self, results: Path, write: Write) -> None:
        write(results, LATER, seed=5, faces_digest="e" * 16, size=40.0)
        found = watch(results, PARAMS)
        assert verdict(found) == "too few to tell"
        assert found.analysis.faces_digest == "e" * 16
        assert len(found.others) == 1

    def test_a_baseline_of_another_model_is_refused(
        self, results: Path, write: Write, tmp_path: Path
    ) -> None:
        write_baseline(results, PARAMS, out=tmp_path / "one.json")
        write(results, LATER, seed=5, model="b", version=2)
        with pytest.raises(UsageError, match="of m:1, the results are of m:2"):
            watch(results, PARAMS, baseline=tmp_path / "one.json")
        write(results, LATER + 1, seed=5, faces_digest="e" * 16)
        with pytest.raises(UsageError, match="other `faces` parameters"):
            watch(results, PARAMS, baseline=tmp_path / "one.json")


class TestBadInput:
    def test_empty_and_missing_folders(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "none"):
            with pytest.raises(TableError, match=r"holds no results.*fer batch"):
                watch(place, PARAMS)

    def test_damaged_files_are_named(self, results: Path) -> None:
        part = sorted((results / "parts").iterdir())[3]
        data = part.read_bytes()
        for damage in (data[:-30], b"", b"PAR1"):
            part.write_bytes(damage)
            with pytest.raises(TableError, match=part.name):
                watch(results, PARAMS)
        part.write_bytes(data)
        refused = sorted((results / "quarantine").iterdir())[0]
        refused.write_bytes(data)  # results where the quarantine should be
        with pytest.raises(TableError, match=refused.name):
            watch(results, PARAMS)

    def test_other_files_are_left_alone(self, results: Path) -> None:
        before = watch(results, PARAMS).document()
        (results / "parts" / "part-1.csv").write_text("uri\n")
        (results / "parts" / ".part-2.parquet").write_text("half")
        (results / "notes.txt").write_text("x")
        assert watch(results, PARAMS).document() == before

    def test_only_a_quarantine(self, results: Path) -> None:
        for part in (results / "parts").iterdir():
            part.unlink()
        with pytest.raises(TableError, match="no results"):
            watch(results, PARAMS)

    def test_an_expression_of_another_set(self, results: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        part = next((results / "parts").iterdir())
        table = pq.read_table(part)
        moods = pa.array(["contempt"] * table.num_rows)
        at = table.schema.get_field_index("expression")
        pq.write_table(table.set_column(at, table.schema.field(at), moods), part)
        with pytest.raises(TableError, match="contempt"):
            watch(results, PARAMS)

    def test_questions_that_make_no_sense(self, results: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not both"):
            watch(results, PARAMS, days=1, runs=1)
        with pytest.raises(UsageError, match="not both"):
            watch(results, PARAMS, baseline="x.json", baseline_period=Period())
        with pytest.raises(TableError, match=r"no baseline .*x\.json"):
            watch(results, PARAMS, baseline=tmp_path / "x.json")
        with pytest.raises(StoreError, match="cannot be read"):
            watch(results, PARAMS, baseline=tmp_path)
        with pytest.raises(UsageError, match="is a file"):
            watch(next((results / "parts").iterdir()), PARAMS)
        with pytest.raises(UsageError, match="cannot be written"):
            watch("ftp://host/x", PARAMS)
        early = Period(None, START - timedelta(days=1))
        with pytest.raises(UsageError, match="has 0 faces"):
            write_baseline(results, PARAMS, period=early)
        with pytest.raises(UsageError, match="is no date"):
            moment("last week")

    def test_dates_are_utc_unless_they_say_otherwise(self) -> None:
        assert moment("2026-03-02") == moment("2026-03-02T01:00+01:00")
        # "Until the second" includes the second.
        day, end = timedelta(days=1), moment("2026-03-02", last=True)
        assert moment("2026-03-02T23:59") < end < moment("2026-03-02") + day
        assert moment("2026-03-02T12:00", last=True) == START

    def test_a_place_with_rows_but_no_face(self, tmp_path: Path, write: Write) -> None:
        write(tmp_path, 0, seed=1, without=1.0)
        assert choose(read_history(tmp_path), None).version == 1
        assert verdict(watch(tmp_path, PARAMS)) == "too few to tell"
