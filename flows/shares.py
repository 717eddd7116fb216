"""Sub-flow batch-shares: a batch inference shared out to Dask workers.

What workers run is in this module and not in flows/batch.py: Prefect loads the entry point of a
deployment under a name of its own, which no worker could import.
"""

from __future__ import annotations

import os
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner

from fer.errors import SettingsError, WorkflowError
from fer.inference.batch import BatchSummary
from fer.inference.scale import ShareJob, lost_share, run_share, run_shares
from fer.inference.shares import Share
from fer.params import FacesParams
from fer.settings import settings
from flows.progress import Progress
from flows.redaction import redacted
from flows.storage import may_pass, storage_failed

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

WORKER_SECONDS = 300.0
"""How long a cluster may be without any worker, at the start and later."""
_LOOK_SECONDS = 30.0
_DELAYS = (60.0, 300.0)


class ScaleError(WorkflowError):
    """The Dask cluster is not there, or has no worker left."""


class ShareError(WorkflowError):
    """A share that failed, tried again or not; the message is its own error's."""


@task(
    name="analyse share",
    task_run_name="share {number}",
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_jitter_factor=0.2,
    retry_condition_fn=storage_failed,
    cache_policy=NO_CACHE,
)
@redacted
def analyse_share(job: dict[str, Any], share: bytes, number: int) -> dict[str, Any]:
    """Analyse one share of the pictures in a worker, and write it as one results file."""
    return run_share(ShareJob(**job), Share.unpack(share)).as_dict()


def share_out(
    *,
    input: str,
    output: str,
    model: str,
    registry: str | None,
    faces: FacesParams,
    csv: bool,
    share_bytes: int,
    workers: int | None,
) -> BatchSummary:
    """Run `batch_shares`, again where storage or cluster did not answer.

    Args:
        workers: processes to start on this machine; None or 0 takes FER_DASK_SCHEDULER's.
        input, output, model, registry, faces, csv, share_bytes: see `run_shares`.

    Raises:
        SettingsError: see `dask_runner`.
        ScaleError, ShareError: no worker was left, or a share failed for good.
        What `run_shares` raises.
    """
    run = batch_shares.with_options(task_runner=dask_runner(workers, settings().dask_scheduler))
    for delay in (*_DELAYS, None):
        try:
            return run(
                input=input,
                output=output,
                model=model,
                registry=registry,
                faces=faces,
                csv=csv,
                share_bytes=share_bytes,
            )
        except Exception as error:
            if delay is None or not (may_pass(error) or isinstance(error, ScaleError)):
                raise
            get_run_logger().warning("%s Another try in %.0f s.", error, delay)
        time.sleep(delay)
    raise AssertionError("the last try returns or raises")


@flow(name="batch-shares", timeout_seconds=24 * 3600)
@redacted
def batch_shares(
    input: str,
    output: str,
    model: str,
    registry: str | None,
    faces: FacesParams,
    csv: bool,
    share_bytes: int,
) -> BatchSummary:
    """Split the pictures that the output does not hold yet into shares, and hand those out.

    A sub-flow of batch-inference, which chooses the workers. This process lists and counts.

    Args:
        input: Folder, picture or s3://bucket/prefix, reachable from every worker.
        output: Folder or s3://bucket/prefix, reachable from every worker.
        model: name, name@alias, name:version, or a package's folder.
        registry: Folder or s3://bucket/prefix of the model registry. Empty takes FER_REGISTRY.
        faces: How faces are found.
        csv: Write the results as CSV too.
        share_bytes: Bytes of pictures per share.
    """
    return run_shares(
        input,
        output,
        pool=DaskPool(),
        model=model,
        registry=registry,
        faces=faces,
        share_bytes=share_bytes,
        csv=csv,
        progress=Progress(),
    )


def is_shared(workers: int | None) -> bool:
    """Whether a run with this parameter `workers` is shared out."""
    return bool(workers) or (workers is None and bool(settings().dask_scheduler))


def dask_runner(workers: int | None, scheduler: str | None) -> TaskRunner[Any]:
    """A task runner on a cluster of this machine, or on the one of a scheduler's address.

    Nothing is started or contacted before the first task is submitted.

    Raises:
        SettingsError: prefect-dask is not installed, or a secret would cross a network readable.
    """
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise SettingsError(
            f"Dask workers need a package that is not installed ({error.name}). Install the extra "
            "scale (pip install -c constraints.txt '.[scale]'), or set the parameter workers to 0 "
            "to do without."
        ) from error
    if not workers:
        _require_secrecy(scheduler or "")
        return DaskTaskRunner(address=scheduler)
    threads = settings().threads or max(1, (os.cpu_count() or 1) // workers)
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": workers,
            # A share uses several threads by itself.
            "threads_per_worker": 1,
            "processes": True,
            "env": {"FER_THREADS": str(threads)},
            # Whoever reaches a scheduler can run code: only holders of its certificate can.
            "security": True,
            "dashboard_address": "127.0.0.1:0",
        }
    )


def _require_secrecy(scheduler: str) -> None:
    """Refuse an address at which others could read the login of the Prefect API.

    Prefect sends its settings with every task, secrets included: a worker reports with them.

    Raises:
        SettingsError: a secret is set, and the scheduler is another machine's without TLS.
    """
    scheme, _, place = scheduler.rpartition("://")
    if scheme in {"tls", "wss", "inproc"} or _is_loopback(urlsplit(f"//{place}").hostname):
        return
    if secrets := _secrets():
        raise SettingsError(
            f"FER_DASK_SCHEDULER is {scheduler}, without TLS, and Prefect sends its settings with "
            f"every task: {', '.join(secrets)} could be read on the way. Have the scheduler and "
            f"its workers use certificates and name it tls://{place} (docs/operations.md, "
            "Scale-out), or set the parameter workers to 0 to do without."
        )


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:  # a name
        return False


def _secrets() -> list[str]:
    """Prefect's settings that are set and secret, by the names of their variables."""
    now = get_current_settings()
    names = {"PREFECT_CLIENT_CUSTOM_HEADERS"} if now.client.custom_headers else set()
    plain, masked = (
        now.to_environment_variables(exclude_unset=True, include_secrets=told)
        for told in (True, False)
    )
    return sorted(names | {name for name, value in plain.items() if masked.get(name) != value})


class _Given(NamedTuple):
    """A share that was given out."""

    job: ShareJob
    share: Share
    number: int


class DaskPool:
    """The Dask workers of the current flow run's task runner (a `fer.inference.scale.Pool`).

    Args:
        work: the task that does a share; it has the parameters of `analyse_share`.
    """

    def __init__(self, work: Task[..., dict[str, Any]] = analyse_share) -> None:
        self.work = work
        self._client: Any = None  # distributed.Client, whose methods are not typed
        self._under_way: dict[str, tuple[PrefectDaskFuture[dict[str, Any]], _Given]] = {}

    def room(self) -> int:
        """Two shares per thread and two more, so that none is idle while this process is busy."""
        return 2 * sum(self.workers().values()) + 2

    def submit(self, job: ShareJob, share: Share, number: int) -> None:
        """Give a share to whichever worker is free first."""
        future = self._runner().submit(
            self.work, parameters={"job": job.as_dict(), "share": share.pack(), "number": number}
        )
        self._under_way[future.wrapped_future.key] = future, _Given(job, share, number)

    def take(self) -> BatchSummary:
        """The summary of a share that has ended; of one that kills its workers, that it failed.

        Raises:
            ScaleError: the scheduler has gone, or there has been no worker for five minutes.
            ShareError: the share failed, and another try cannot or did not help.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError, FuturesCancelledError

        gone = "The Dask scheduler has gone. Start it again; what is recorded is kept."
        try:
            future, given = self._under_way.pop(self._wait())
        except FuturesCancelledError as error:
            raise ScaleError(gone) from error
        try:
            return BatchSummary(**future.result())
        except KilledWorker:
            reason = "its workers died, one after another (out of memory?)"
            return lost_share(given.job, given.share, reason)
        except FutureCancelledError as error:
            raise ScaleError(gone) from error
        except Exception as error:
            raise ShareError(f"Share {given.number} failed: {error}") from error

    def drain(self) -> None:
        """Cancel what waits. A share that a worker is at ends there, and another run refuses it."""
        if self._client is not None and self._under_way:
            self._client.cancel([one.wrapped_future for one, _ in self._under_way.values()])
        self._under_way.clear()

    def _wait(self) -> str:
        """The key of a share that has ended."""
        import distributed

        wait: Any = distributed.wait
        futures = [one.wrapped_future for one, _ in self._under_way.values()]
        while True:
            try:
                with self._client.as_current():
                    ended = wait(futures, timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self.workers()
            else:
                return str(next(iter(ended.done)).key)

    def workers(self) -> dict[str, int]:
        """Threads by worker; where there is none, wait for one.

        Raises:
            ScaleError: no scheduler answers, or there has been no worker for five minutes.
        """
        if self._client is None:
            self._client = self._connected()
        found: dict[str, int] = self._client.nthreads()
        if not found:
            try:
                self._client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except TimeoutError:
                raise ScaleError(
                    f"There has been no Dask worker for {WORKER_SECONDS:.0f} s. Start some: "
                    f"dask worker {self._client.scheduler.address}"
                ) from None
            found = self._client.nthreads()
        return found

    def _connected(self) -> Any:
        runner = self._runner()
        try:
            return runner.client
        except OSError as error:
            raise ScaleError(
                f"No Dask scheduler answers at {runner.address}. Start one there (dask scheduler) "
                "or correct FER_DASK_SCHEDULER."
            ) from error

    @staticmethod
    def _runner() -> Any:
        context = FlowRunContext.get()
        assert context is not None  # noqa: S101
        return context.task_runner
