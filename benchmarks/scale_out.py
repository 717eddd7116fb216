"""What sharing out a batch to Dask workers gains, and what it costs.

    python benchmarks/scale_out.py
    python benchmarks/scale_out.py --items 4000 --cost-ms 50 --share-items 40 --most --json
    python benchmarks/scale_out.py --ray        # with pip install -c constraints.txt prefect-ray

The compute is simulated: looking at an item is a sleep of known length, one at a time per worker,
so that four workers may be compared on a machine of two cores. All else is as in a real run: the
listing, the shares, a Prefect task run per share on a Dask worker process of this machine, a
Parquet part per share written by the worker, the summaries. The items are made up, 100 kB each, and
no picture is read or decoded. The Prefect server is the one of PREFECT_API_URL or, without that,
one started for the purpose on SQLite.

With --ray the same shares are given to Ray workers too, by prefect-ray, which the project does not
depend on; where it is not installed, that is said and left out.

Three tables: throughput and its ratio to linear by number of workers; what a run takes beyond the
compute, with one worker, per 1,000 items; and the most memory that the driving process held, by
number of items, whose compute is nothing. The clock starts when the workers are there and have
imported what they need; that start is a column of its own. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner

from fer.inference.batch import BatchRun, BatchSummary
from fer.inference.inputs import Inputs, PictureFile
from fer.inference.outputs import open_output
from fer.inference.recognizer import ModelInfo
from fer.inference.scale import ShareJob, ShareRun, share_out
from fer.inference.shares import Share
from fer.params import FacesParams
from flows.shares import DaskPool, dask_runner

ITEM_BYTES = 100_000


class MadeInputs(Inputs):
    """So many pictures that are nowhere."""

    def __init__(self, items: int) -> None:
        super().__init__("s3://made-up/items")
        self.items = items

    def pictures(self) -> Iterator[PictureFile]:
        for number in range(self.items):
            key = f"items/{number:07}.jpg"
            yield PictureFile(f"s3://made-up/{key}", f"{number:032x}", ITEM_BYTES, key)

    def read(self, picture: PictureFile) -> bytes:
        return b""

    def count(self) -> int:
        return self.items


class Sleeper:
    """A recognizer that finds no face, and takes its time."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.faces = FacesParams()
        self.model = ModelInfo("simulated", None, "0" * 64)
        self.detector = SimpleNamespace(name="simulated")
        self.landmarks = None
        self.classifier = SimpleNamespace(probabilities=self._probabilities)

    def read(self, data: bytes) -> Any:
        return SimpleNamespace(width=640, height=480)

    def find(self, picture: object) -> list[Any]:
        time.sleep(self.cost)
        return []

    @staticmethod
    def _probabilities(crops: Sequence[Any]) -> Any:
        return np.zeros((len(crops), 7), np.float32)


@task(name="simulated share", task_run_name="share {number}", cache_policy=NO_CACHE)
def simulated_share(job: dict[str, Any], share: bytes, number: int) -> dict[str, Any]:
    """`flows.shares.analyse_share` with a `Sleeper`, whose cost is in the place of the model."""
    made: Any = Sleeper(float(job["model"]))
    run = ShareRun(MadeInputs(0), open_output(job["output"]), made, False, job["run_id"])
    return run.take(Share.unpack(share)).as_dict()


class RayPool:
    """Ray workers of the flow run's task runner (a `fer.inference.scale.Pool`), for comparison."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._under_way: dict[Any, Any] = {}

    def room(self) -> int:
        return 2 * self.workers + 2

    def submit(self, job: ShareJob, share: Share, number: int) -> None:
        parameters = {"job": job.as_dict(), "share": share.pack(), "number": number}
        future = DaskPool._runner().submit(simulated_share, parameters=parameters)
        self._under_way[future.wrapped_future] = future

    def take(self) -> BatchSummary:
        import ray

        ended, _ = ray.wait(list(self._under_way), num_returns=1)
        return BatchSummary(**self._under_way.pop(ended[0]).result())

    def drain(self) -> None:
        self._under_way.clear()


@flow(name="simulated batch")
def simulated_batch(
    items: int, cost: float, share_items: int, workers: int, engine: str = "dask"
) -> dict[str, Any]:
    """One run; its seconds, and the memory of this process before and after."""
    started = time.perf_counter()
    pool: DaskPool | RayPool
    if engine == "ray":
        pool = RayPool(workers)
    else:
        pool = DaskPool(simulated_share)
        pool.workers()
        pool._client.wait_for_workers(workers)
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        _share_out(pool, 4 * workers, 0.0, 1, f"{folder}/warm")
        ready = time.perf_counter()
        before = _peak_mb()
        _share_out(pool, items, cost, share_items, f"{folder}/out")
        seconds = time.perf_counter() - ready
        shares = len(list(Path(folder, "out", "parts").iterdir()))
    return {
        "engine": engine,
        "items": items,
        "workers": workers,
        "shares": shares,
        "start_seconds": ready - started,
        "seconds": seconds,
        "compute_seconds": items * cost,
        "peak_mb_before": before,
        "peak_mb": _peak_mb(),
    }


def ray_runner(workers: int) -> TaskRunner[Any]:
    """A task runner on a Ray cluster of this machine, a worker per CPU that it is given."""
    from prefect_ray import RayTaskRunner

    options = {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False}
    runner: TaskRunner[Any] = RayTaskRunner(init_kwargs=options)
    return runner


def _share_out(
    pool: DaskPool | RayPool, items: int, cost: float, share_items: int, output: str
) -> None:
    made: Any = Sleeper(cost)
    run = BatchRun(MadeInputs(items), open_output(output), made, False)
    job = ShareJob(run.summary.run_id, "", output, str(cost), "", None, "", "", False)
    share_out(run, job, pool, share_items * ITEM_BYTES)
    summary = run.finish(time.monotonic())
    if (summary.pictures, summary.analysed) != (items, items):
        raise SystemExit(f"{summary.analysed} of {items} items were done: {summary.problems[:1]}")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(api: str, **arguments: Any) -> dict[str, Any]:
    """One run in a process of its own."""
    environment = os.environ | {
        "PREFECT_API_URL": api,
        "FER_THREADS": "1",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(results: dict[str, Any]) -> None:
    """The three tables, the first two for each engine."""
    report_throughput(results["throughput"], results["cost_ms"])
    if "ray" in results:
        report_throughput(results["ray"], results["cost_ms"])
    print(f"\n{'items':>8}{'shares':>8}{'peak MB before':>16}{'after':>8}{'seconds':>9}")
    for run in results["memory"]:
        print(
            f"{run['items']:>8,}{run['shares']:>8}{run['peak_mb_before']:>16.0f}"
            f"{run['peak_mb']:>8.0f}{run['seconds']:>9.1f}"
        )


def report_throughput(runs: list[dict[str, Any]], cost_ms: float) -> None:
    """Throughput by number of workers, and what is beyond the compute."""
    one = runs[0]
    rate = one["items"] / one["seconds"] / one["workers"]
    print(
        f"\n{one['engine']}: {one['items']:,} items of {cost_ms:g} ms (simulated by sleeping), "
        f"{one['shares']} shares; the driver holds {max(run['peak_mb'] for run in runs):.0f} MB"
    )
    print(f"{'workers':>8}{'items/s':>10}{'of linear':>11}{'of ideal':>10}{'start s':>9}")
    for run in runs:
        speed = run["items"] / run["seconds"]
        linear = speed / (rate * run["workers"])
        ideal = run["compute_seconds"] / run["workers"] / run["seconds"]
        print(
            f"{run['workers']:>8}{speed:>10.1f}{linear:>11.1%}{ideal:>10.1%}"
            f"{run['start_seconds']:>9.1f}"
        )
    beyond = one["seconds"] - one["compute_seconds"] / one["workers"]
    print(
        f"\nbeyond the compute, {one['workers']} worker(s): "
        f"{1000 * beyond / one['items']:.2f} s per 1,000 items, "
        f"{beyond * one['workers'] / one['compute_seconds']:.2%} of it"
    )


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        arguments = json.loads(sys.argv[2])
        workers = arguments["workers"]
        ray = arguments.get("engine") == "ray"
        runner = ray_runner(workers) if ray else dask_runner(workers, None)
        found = simulated_batch.with_options(task_runner=runner)(**arguments)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000, help="of the throughput runs")
    parser.add_argument("--cost-ms", type=float, default=20.0, help="sleep per item")
    parser.add_argument("--share-items", type=int, default=50, help="items per share")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[1_000, 10_000], help="items of the memory runs"
    )
    parser.add_argument("--most", action="store_true", help="a memory run of 100,000 items too")
    parser.add_argument("--ray", action="store_true", help="the throughput under Ray too")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    options = parser.parse_args()
    with_ray = options.ray and find_spec("prefect_ray") is not None
    if options.ray and not with_ray:
        print(
            "prefect-ray is not installed, so Ray is left out: "
            "pip install -c constraints.txt prefect-ray",
            file=sys.stderr,
        )
    results: dict[str, Any] = {"cost_ms": options.cost_ms, "cores": os.cpu_count()}
    with served() as api:
        work = {
            "items": options.items,
            "cost": options.cost_ms / 1000,
            "share_items": options.share_items,
        }
        results["throughput"] = [
            measured(api, **work, workers=workers) for workers in options.workers
        ]
        if with_ray:
            results["ray"] = [
                measured(api, **work, workers=workers, engine="ray") for workers in options.workers
            ]
        results["memory"] = [
            measured(api, items=items, cost=0.0, share_items=250, workers=2)
            for items in options.memory + [100_000] * options.most
        ]
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        report(results)


@contextmanager
def served() -> Iterator[str]:
    """The address of a Prefect server."""
    if api := os.environ.get("PREFECT_API_URL"):
        yield api
        return
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


if __name__ == "__main__":
    main()
