"""Results at one place, held against what was usual there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fer.errors import StoreError, TableError, UsageError
from fer.files import write_bytes
from fer.inference.objects import S3
from fer.inference.outputs import open_output
from fer.monitoring.compare import Comparison, compare
from fer.monitoring.history import Analysis, History, Period, Progress, choose, read_history
from fer.monitoring.profile import Profile, read_profile
from fer.params import MonitoringParams

BASELINES: Final = "baselines"


@dataclass(frozen=True)
class Drift:
    """What was found at one place.

    Attributes:
        results: the place, as a URI.
        analysis: whose results were watched.
        others: whose results are there too and were not.
        comparison: the window beside its baseline.
    """

    results: str
    analysis: Analysis
    others: tuple[Analysis, ...]
    comparison: Comparison

    def document(self) -> dict[str, Any]:
        """For JSON; the profiles without their quantiles."""

        def window(profile: Profile) -> dict[str, Any]:
            left_out = {"schema", "analysis", "values"}
            return {
                name: value for name, value in profile.document().items() if name not in left_out
            }

        return {
            "results": self.results,
            "model": self.analysis.document(),
            "other_models": [str(one) for one in self.others],
            "verdict": self.comparison.verdict,
            "text": self.comparison.text,
            "baseline": window(self.comparison.baseline),
            "now": window(self.comparison.now),
            "min_faces": self.comparison.min_faces,
            "significance": self.comparison.significance,
            "lines": [line.document() for line in self.comparison.lines],
        }


def watch(
    where: str | Path,
    params: MonitoringParams,
    *,
    model: str | None = None,
    baseline: str | Path | None = None,
    baseline_period: Period | None = None,
    days: float | None = None,
    runs: int | None = None,
    until: datetime | None = None,
    progress: Progress | None = None,
) -> Drift:
    """Compare the newest results of a model with its baseline.

    The baseline is, in this order: the file that is named; the period that is named; the file
    that `write_baseline` left at the place for this model; the first faces that this model ever
    analysed there. The window looked at never reaches back into it.

    Args:
        where: a folder or s3://bucket/prefix that batches write to.
        params: section `monitoring` of params.yaml.
        model: whose results: name, name:7 or the beginning of a digest. None is whoever made
            the newest.
        baseline: a file of `write_baseline` or a package's reference.json; a path or s3:// URL.
        baseline_period: when the baseline was made instead.
        days: length of the window; None is `params.window_days`. It ends with the newest result.
        runs: look at the last runs instead.
        until: look no further than this.
        progress: called after every file read.

    Raises:
        UsageError: no such model there, two windows at once, a baseline of another model.
        TableError: no results, a damaged file.
        StoreError: the place or the baseline cannot be read.
    """
    if days is not None and runs is not None:
        raise UsageError("Name the days or the runs to look at, not both.")
    if baseline is not None and baseline_period is not None:
        raise UsageError("Name the file of the baseline or its period, not both.")
    history = read_history(where, progress)
    analysis = choose(history, model)
    own = history.by(analysis)
    usual = _baseline(where, own, analysis, params, baseline, baseline_period)
    window = own if usual.until is None else own.after(usual.until)
    if until is not None:
        window = window.during(Period(until=until))
    if runs is not None:
        window, title = window.last_runs(runs), f"the last {runs} runs"
    else:
        length = params.window_days if days is None else days
        title = f"the last {length:g} days of results"
        if newest := window.newest:
            window = window.during(Period(since=newest - timedelta(days=length)))
    now = Profile.of(window, title, analysis)
    return Drift(
        results=open_output(where).uri,
        analysis=analysis,
        others=tuple(one for one in history.analyses() if one != analysis),
        comparison=compare(usual, now, params),
    )


def write_baseline(
    where: str | Path,
    params: MonitoringParams,
    *,
    out: Path | None = None,
    model: str | None = None,
    period: Period | None = None,
    progress: Progress | None = None,
) -> tuple[Profile, str]:
    """Record what is usual, so that it stays when old results are deleted.

    Args:
        where: as in `watch`.
        params: as in `watch`.
        out: the file. None is a file at `where`, one for each model and `faces` parameters,
            which `watch` finds by itself.
        model: as in `watch`.
        period: when the results were made that are usual. None is the first faces.
        progress: called after every file read.

    Returns:
        The profile, and where it is now.

    Raises:
        UsageError: too few faces; and as `watch`.
        TableError, StoreError: as `watch`.
    """
    history = read_history(where, progress)
    analysis = choose(history, model)
    profile = _own_baseline(history.by(analysis), analysis, params, period)
    if profile.faces < params.min_faces:
        raise UsageError(
            f"{analysis} has {profile.faces:,} faces there ({profile.title}); a baseline needs "
            f"{params.min_faces:,} (monitoring.min_faces). Analyse more, or name another period."
        )
    if out is not None:
        write_bytes(out, profile.to_json())
        return profile, str(out)
    place = open_output(where)
    place.write(_name(analysis), profile.to_json())
    return profile, f"{place.uri}/{_name(analysis)}"


def _baseline(
    where: str | Path,
    own: History,
    analysis: Analysis,
    params: MonitoringParams,
    file: str | Path | None,
    period: Period | None,
) -> Profile:
    if file is not None:
        return _fitting(read_profile(_bytes(file), str(file)), analysis, str(file))
    place = open_output(where)
    if period is None and _name(analysis) in place.names(BASELINES):
        stored = f"{place.uri}/{_name(analysis)}"
        return _fitting(read_profile(place.read(_name(analysis)), stored), analysis, stored)
    return _own_baseline(own, analysis, params, period)


def _own_baseline(
    own: History, analysis: Analysis, params: MonitoringParams, period: Period | None
) -> Profile:
    if period is not None:
        return Profile.of(own.during(period), f"results of {period}", analysis)
    first = own.first_faces(params.baseline_faces)
    title = f"the first faces of {analysis}"
    if first.faces < params.baseline_faces:
        title += f" (a baseline is made of {params.baseline_faces:,})"
    return Profile.of(first, title, analysis)


def _fitting(profile: Profile, analysis: Analysis, where: str) -> Profile:
    """The profile, if it is of the model whose results are looked at."""
    theirs = profile.analysis
    if not theirs:  # a package's own figures
        return profile
    if theirs.get("digest") != analysis.digest:
        raise UsageError(
            f"The baseline {where} is of {theirs.get('name')}:{theirs.get('version')}, the results "
            f"are of {analysis}: their difference would be the models'. Make one of this version: "
            "fer drift baseline RESULTS"
        )
    if theirs.get("faces_digest") != analysis.faces_digest:
        raise UsageError(
            f"The baseline {where} was made with other `faces` parameters than the results: their "
            "difference would be the detector's. Make another: fer drift baseline RESULTS"
        )
    return profile


def _name(analysis: Analysis) -> str:
    """Of the stored baseline of a model and its `faces` parameters."""
    return f"{BASELINES}/{analysis.digest[:16]}-{analysis.faces_digest}.json"


def _bytes(file: str | Path) -> bytes:
    text = str(file)
    if text.startswith(S3):
        parent, _, name = text.rpartition("/")
        return open_output(parent).read(name)
    try:
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise TableError(
            f"There is no baseline {file}. Make one: fer drift baseline RESULTS --out {file}"
        ) from None
    except OSError as error:
        raise StoreError(f"The baseline {file} cannot be read: {error.strerror}.") from error
