"""Sub-flow judge-models: the gate's evaluation of challenger and champion, shared out.

What workers run is in this module for the same reason as in flows/shares.py: they must be able to
import it.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from fer.dataset.table import FaceTable
from fer.evaluation.gate import GateDecision
from fer.inference.judged import ImageShare, classify_share, decide, gate_images, shares
from fer.inference.scale import registry_address
from fer.params import Params
from fer.registry.registry import Registry
from fer.registry.versions import Version
from fer.settings import settings
from flows.redaction import redacted
from flows.shares import DaskPool, dask_runner
from flows.storage import storage_failed


@task(
    name="classify test images",
    task_run_name="{share.model}, share {number}",
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_jitter_factor=0.2,
    retry_condition_fn=storage_failed,
    cache_policy=NO_CACHE,
)
@redacted
def classify(share: ImageShare, number: int) -> NDArray[np.float32]:
    """Classify some of the test images with one model, in a worker."""
    return classify_share(share)


def judge_shared(
    models: Registry,
    versions: list[Version],
    faces: FaceTable,
    params: Params,
    registry: str | None,
    workers: int | None,
) -> GateDecision:
    """`fer.evaluation.gate_data.judge`, classified by Dask workers; the same decision.

    Args:
        models: the registry.
        versions: the challenger, and the champion where there is one.
        faces: the prepared table.
        params: of the project.
        registry: its address, reachable from every worker.
        workers: processes to start on this machine; None or 0 takes FER_DASK_SCHEDULER's.

    Raises:
        SettingsError: see `dask_runner`.
        ScaleError: the cluster is not there, or has no worker.
    """
    run = judge_models.with_options(task_runner=dask_runner(workers, settings().dask_scheduler))
    test = gate_images(faces)
    with TemporaryDirectory(prefix="fer-gate-") as folder:
        # A flow's parameters are kept by the server; and the project's own file may be made anew
        # meanwhile, with other images than those that the answers are held against below.
        table = Path(folder) / "faces.parquet"
        test.write(table)
        found = run(
            [str(one) for one in versions], [one.digest for one in versions], table, registry
        )
    packages = [models.pull(str(one)) for one in versions]
    return decide(
        list(zip(packages, found, strict=True)),
        test,
        params.gate,
        bins=params.evaluate.calibration_bins,
    )


@flow(name="judge-models", timeout_seconds=3600)
@redacted
def judge_models(
    models: list[str], digests: list[str], faces: Path, registry: str | None
) -> list[NDArray[np.float32]]:
    """Run registered models on the test images, all shares of all models at once.

    A sub-flow of the gate, which chooses the workers.

    Args:
        models: Versions, name:7.
        digests: What they must be.
        faces: A table of the test images; workers need not reach it.
        registry: Folder or s3://bucket/prefix, reachable from every worker. Empty takes
            FER_REGISTRY.
    """
    test = gate_images(FaceTable.read(faces))
    place = registry_address(registry)
    DaskPool().workers()  # no worker: said now, not after an hour
    under_way = [
        [
            classify.submit(share, number)
            for number, share in enumerate(shares(model, digest, place, test), 1)
        ]
        for model, digest in zip(models, digests, strict=True)
    ]
    return [np.concatenate([one.result() for one in parts]) for parts in under_way]
