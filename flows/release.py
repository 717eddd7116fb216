"""Flows evaluate-and-register and gate: into the registry, and past the gate to champion.

evaluate-and-register does both for the package of a project. gate decides on a version that is
registered already, by a training for example; an automation starts it (flows/automations.py).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefect import flow, task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.utilities.timeout import timeout
from pydantic import Field

from fer.errors import NotFoundError, TableError, WorkflowError
from fer.evaluation.gate import GateDecision, check_gate
from fer.lineage import Lineage
from fer.params import load_params
from fer.registry.registry import Registry
from fer.registry.versions import Version
from flows import artifacts, events
from flows.data import FOLDER
from flows.lineage import PREPARED, model_tags, tag_run
from flows.redaction import redacted
from flows.registration import again, register
from flows.shares import is_shared
from flows.stages import HOUR, WAIT_SECONDS
from flows.states import completed
from flows.training import EVALUATE_SECONDS, PACKAGE_SECONDS, evaluate, package
from flows.writer import dvc_root, writer

if TYPE_CHECKING:
    from fer.dataset.table import FaceTable

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Release:
    """Where a registered version stands after the gate."""

    name: str
    number: int
    digest: str
    alias: str  # champion or challenger
    moved: bool  # whether this run set the alias
    text: str  # why, in the gate's words

    @property
    def reference(self) -> str:
        """What to give to `fer predict --model`: name@alias."""
        return f"{self.name}@{self.alias}"


@flow(name="evaluate-and-register")
@redacted
def evaluate_and_register(
    project: Path = FOLDER,
    registry: str | None = None,
    promote: bool = True,
    note: str = "",
    workers: Annotated[int, Field(ge=0, le=256)] | None = None,
) -> Release:
    """Register the model that the train flow made, and make it champion if the gate lets it.

    The package is evaluated anew where its figures are out of date; nothing is trained. A
    version that does not pass stays registered as challenger, the champion stays what it is,
    and the run says why. The same package twice is one version.

    Args:
        project: Folder of dvc.yaml. The default is the deployment's own checkout.
        registry: A folder or s3://bucket/prefix. Empty takes FER_REGISTRY of the worker.
            Credentials never go here; they are AWS_* in the worker's environment.
        promote: Make the version champion if it passes. Otherwise it becomes challenger only.
        note: Kept with the version: what is new about it.
        workers: Dask worker processes to start on this machine for the gate's evaluation. Empty
            takes the cluster of FER_DASK_SCHEDULER where that is set; else, as with 0, it is done
            in the run's own process.
    """
    evaluate(stage="evaluate", project=project, seconds=EVALUATE_SECONDS, alone=True)
    package(stage="package", project=project, seconds=PACKAGE_SECONDS, alone=True)
    version = register(project, registry, note)
    release = decide(version, project, registry, promote, workers)
    tag_run(
        [
            *Lineage.of(project).tags("data/prepared", "models/package"),
            f"model:{version}",
            f"alias:{release.alias}",
        ]
    )
    return _finished(release)


@flow(name="gate")
@redacted
def gate(
    model: Annotated[str, Field(min_length=1, max_length=500)],
    registry: Annotated[str, Field(min_length=1, max_length=2000)] | None = None,
    promote: bool = True,
    project: Path = FOLDER,
    workers: Annotated[int, Field(ge=0, le=256)] | None = None,
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None,
) -> Release:
    """Take a registered version through the gate, and make it champion if it passes.

    Both models, this one and the present champion, are run on the test images of the project.
    Nothing is trained and nothing is registered. Twice on one version is harmless.

    Args:
        model: Which version: name:7, or name@alias.
        registry: A folder or s3://bucket/prefix. Empty takes FER_REGISTRY of the worker.
            Credentials never go here; they are AWS_* in the worker's environment.
        promote: Make the version champion if it passes. Otherwise it becomes challenger only.
        project: Folder of params.yaml, whose section gate says what is asked, and of
            data/prepared.
        workers: Dask worker processes to start on this machine for the evaluation of the two.
            Empty takes the cluster of FER_DASK_SCHEDULER where that is set; else, as with 0, it
            is done in the run's own process.
        digest: sha256 that the version must have. Empty takes whatever the registry holds.
    """
    version = Registry.open(registry).resolve(model)
    if digest is not None and version.digest != digest:
        raise WorkflowError(
            f"{version} has the digest {version.digest[:12]}, not {digest[:12]}: this registry is "
            "another one than that of the version that was meant. Give its address as registry, "
            "and the worker the FER_S3_ENDPOINT of its server."
        )
    release = decide(version, project, registry, promote, workers)
    made = model_tags(str(version), version.manifest.lineage)
    tag_run([*Lineage.of(project).tags(), *made, f"alias:{release.alias}"])
    return _finished(release)


def _finished(release: Release) -> Release:
    name = "Promoted" if release.alias == CHAMPION else "NotPromoted"
    text = f"{release.name}:{release.number} is {release.alias}. {release.text}"
    return completed(release, name, text)


@task(
    name="gate",
    task_run_name="gate",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=again,
)
@redacted
def decide(
    version: Version,
    project: Path,
    registry: str | None,
    promote: bool,
    workers: int | None = None,
) -> Release:
    """Compare with the gate and with the present champion, and move the alias that follows.

    Both are run on the test images of data/prepared; where the project never had any, the figures
    that the two packages record are compared, and the decision says what that leaves open.
    """
    faces = prepared_faces(project)
    with timeout(HOUR):  # a wait for the data is not in it
        return _decide(version, faces, project, registry, promote, workers)


def _decide(
    version: Version,
    faces: FaceTable | None,
    project: Path,
    registry: str | None,
    promote: bool,
    workers: int | None,
) -> Release:
    log = get_run_logger()
    models = Registry.open(registry)
    champion = _champion(models, version.name)
    is_champion = champion is not None and champion.number == version.number
    against = None if is_champion else champion
    decision = _judge(models, version, against, faces, project, registry, workers)
    show_decision(version, champion, decision)
    if is_champion:
        text = f"It was champion before. {decision.text}"
        if _tried_before():
            # By a try, perhaps, that ended between the move and its event. At worst it is told of
            # twice, and tried out twice.
            events.model_promoted(version, models.url, text)
        return Release(version.name, version.number, version.digest, CHAMPION, False, text)
    alias = CHAMPION if decision.passed and promote else CHALLENGER
    text = decision.text
    if decision.passed and not promote:
        text += " Not promoted, as asked."
    document = decision.document() | {"champion": champion.number if champion else None}
    models.judge(version.name, version.number, document)
    models.promote(
        version.name,
        version.number,
        alias,
        reason=text,
        gate=document,
        # The comparison holds only against the champion that was read.
        expected=(champion.number if champion else 0) if alias == CHAMPION else None,
    )
    (log.info if decision.passed else log.warning)("%s is now %s. %s", version, alias, text)
    if alias == CHAMPION:
        events.model_promoted(version, models.url, text)
    return Release(version.name, version.number, version.digest, alias, True, text)


def _judge(
    models: Registry,
    version: Version,
    champion: Version | None,
    faces: FaceTable | None,
    project: Path,
    registry: str | None,
    workers: int | None,
) -> GateDecision:
    """The gate's decision on a version, on the project's test images where it has them."""
    params = load_params(project / "params.yaml")
    if faces is None:
        # The figures of the package, not of the working folder: what is registered is judged.
        theirs = champion.manifest.metrics if champion else None
        return check_gate(version.manifest.metrics, theirs, params.gate)
    if is_shared(workers):
        from flows.judging import judge_shared

        versions = [version, champion] if champion else [version]
        return judge_shared(models, versions, faces, params, registry, workers)
    from fer.evaluation.gate_data import judge

    return judge(
        models.pull(str(version)),
        models.pull(str(champion)) if champion else None,
        faces,
        params.gate,
        bins=params.evaluate.calibration_bins,
    )


def prepared_faces(project: Path) -> FaceTable | None:
    """The prepared table of a project, read once; None where the project never had one.

    DVC removes data/prepared before it makes it anew, so for as long as data are prepared there is
    none. Then this waits for whoever writes the project; otherwise a training does not keep it
    waiting, since the table is put in its place whole.

    Raises:
        WorkflowError: dvc.lock names data/prepared, and it is not there.
        TableError: it is damaged.
    """
    from fer.dataset.table import FaceTable

    path = project / PREPARED / "faces.parquet"
    with suppress(TableError):
        return FaceTable.read(path)
    try:
        dvc_root(project)
    except WorkflowError:
        return None  # where there is no DVC, nobody prepares data
    log = get_run_logger()
    with writer(project, "the gate's look at the data", log, limit=None, timeout=WAIT_SECONDS):
        if path.is_file():
            return FaceTable.read(path)
        if PREPARED in Lineage.of(project).outputs:
            raise WorkflowError(
                f"dvc.lock names {PREPARED}, and {path} is not there, so the gate has no images to "
                "judge by. Make it with the flow fetch-and-validate, or fetch it with dvc pull."
            )
    return None


def show_decision(version: Version, champion: Version | None, decision: GateDecision) -> None:
    """The decision table."""
    artifacts.table(
        "promotion-decision",
        [
            {
                "check": check.name,
                "value": f"{check.value:.4f}",
                "limit": f"{check.limit:.4f}",
                "passed": "yes" if check.passed else "NO",
                "what": check.text,
            }
            for check in decision.checks
        ],
        f"{version} against {champion or 'no champion'}: "
        + ("passed." if decision.passed else "not passed."),
    )


def _tried_before() -> bool:
    """Whether this is another try of the task, or of its whole run."""
    return max(task_run.run_count or 0, flow_run.run_count or 0) > 1


def _champion(models: Registry, name: str) -> Version | None:
    try:
        return models.resolve(f"{name}@{CHAMPION}")
    except NotFoundError:
        return None
