"""Flow monitor: the newest results beside what was usual for their model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.logging import get_run_logger
from pydantic import Field

from fer.errors import SettingsError
from fer.monitoring.compare import DRIFT, STEADY, shown
from fer.monitoring.watch import Drift, watch
from fer.params import MonitoringParams, load_params
from fer.reports.drift import plot_drift
from fer.settings import settings
from flows import artifacts, events
from flows.batch import Place
from flows.data import FOLDER
from flows.lineage import tag_run
from flows.redaction import redacted
from flows.states import completed
from flows.storage import storage_failed

_STATES = {DRIFT: "Drift", STEADY: "Steady"}


@flow(name="monitor")
@redacted
def monitor(
    results: Place | None = None,
    model: Annotated[str, Field(min_length=1, max_length=500)] | None = None,
    baseline: Place | None = None,
    days: Annotated[float, Field(gt=0, le=3660)] | None = None,
    runs: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    project: Path = FOLDER,
) -> dict[str, Any]:
    """Say whether predictions, faces or pictures are no longer what they were.

    Compares the newest results of batches with an earlier window of the same model version, by
    the thresholds in section monitoring of params.yaml. It reads results only, no picture, and
    knows nothing of which answers were right. The run ends as Drift, Steady or TooFew; drift is
    no failure. On drift it emits the event fer.drift.found, on every run for as long as it lasts.

    Args:
        results: Folder or s3://bucket/prefix that batches write to. Empty takes
            FER_BATCH_OUTPUT of the worker.
        model: Whose results: name, name:version or the beginning of a digest. Empty takes the
            model that made the newest.
        baseline: File of `fer drift baseline`, or a model package's reference.json; a path or
            s3:// address. Empty takes the baseline kept with the results, else the first faces
            that the model analysed.
        days: Length of the window looked at, ending with the newest result. Empty takes
            monitoring.window_days of params.yaml.
        runs: Look at so many last runs of the batch instead of days.
        project: Folder of params.yaml.
    """
    found = compare(
        results=_named(results),
        params=monitoring_params(project),
        model=model,
        baseline=baseline,
        days=days,
        runs=runs,
    )
    verdict, text = found.comparison.verdict, found.comparison.text
    if verdict == DRIFT:
        tell_drift(found)
    show_drift(found)
    tag_run([f"model:{found.analysis}"])
    log = get_run_logger()
    (log.warning if verdict == DRIFT else log.info)("%s", text)
    return completed(found.document(), _STATES.get(verdict, "TooFew"), text)


@task(
    name="compare",
    task_run_name="compare",
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_jitter_factor=0.2,
    retry_condition_fn=storage_failed,
    timeout_seconds=3600,
)
@redacted
def compare(
    *,
    results: str,
    params: MonitoringParams,
    model: str | None,
    baseline: str | None,
    days: float | None,
    runs: int | None,
) -> Drift:
    """Read the results, take their newest window, hold it against the baseline."""
    return watch(results, params, model=model, baseline=baseline, days=days, runs=runs)


@task(name="show drift", task_run_name="show drift")
@redacted
def show_drift(found: Drift) -> None:
    """The drift table, and both windows drawn."""
    comparison = found.comparison
    before, now = comparison.baseline, comparison.now
    artifacts.table(
        "drift",
        [
            {
                "what": line.name,
                "baseline": shown(line, line.baseline),
                "now": shown(line, line.now),
                "statistic": line.statistic,
                "effect": "-" if line.effect is None else f"{line.effect:.3f}",
                "threshold": f"{line.threshold:g}",
                "verdict": line.verdict,
            }
            for line in comparison.lines
        ],
        f"{comparison.text} {found.analysis}, results in {found.results}. Baseline: "
        f"{before.title}, {before.faces:,} faces. Now: {now.title}, {now.faces:,} faces. "
        "Nothing here is labelled: drift is not accuracy.",
    )
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "drift.png"
        plot_drift(comparison, picture)
        artifacts.image("drift-picture", picture, "Baseline and now; what drifted is red.")


def tell_drift(found: Drift) -> None:
    """Emit `fer.drift.found`, for automations to answer."""
    comparison, analysis = found.comparison, found.analysis
    figures = {
        "text": comparison.text,
        "results": found.results,
        "model": analysis.document(),
        "since": comparison.now.since and comparison.now.since.isoformat(),
        "until": comparison.now.until and comparison.now.until.isoformat(),
        "faces": comparison.now.faces,
        "drifted": [line.document() for line in comparison.drifted],
    }
    events.drift_found(analysis.name, analysis.version, analysis.digest, figures)


def monitoring_params(project: Path) -> MonitoringParams:
    """Section monitoring of the project's params.yaml; the defaults where there is no file."""
    path = project / "params.yaml"
    return load_params(path).monitoring if path.exists() else MonitoringParams()


def _named(results: str | None) -> str:
    place = results or settings().batch_output
    if place is None:
        raise SettingsError(
            "No results are named. Give the parameter results, or set FER_BATCH_OUTPUT in the "
            "worker's environment or in the deployment's job_variables.env."
        )
    return place
