"""Batches shared out to real Dask workers, and what is said where there are none."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.logging import disable_run_logger
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_DATABASE_PASSWORD,
    temporary_settings,
)

from fer.errors import PackageError, SettingsError
from fer.inference.batch import BatchSummary
from fer.inference.inputs import PictureFile
from fer.inference.scale import ShareJob
from fer.inference.shares import Share
from fer.params import FacesParams
from flows import shares
from flows.batch import batch_inference
from flows.shares import DaskPool, ScaleError, ShareError, _Given, dask_runner, share_out

distributed = pytest.importorskip("distributed")
# What distributed warns of is its own affair.
pytestmark = pytest.mark.filterwarnings("default")

JOB = ShareJob("run", "in", "out", "model", "d" * 64, None, "{}", "f" * 16, False)
SHARE = Share(tuple(PictureFile(f"file:///{n}.jpg", "e", 1, f"/{n}.jpg") for n in range(3)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixteen photographs; of those of 430 kB, two are a share of 1 MB."""
    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(16):
        path = folder / f"{number:02}.jpg"
        Image.fromarray(np.roll(astronaut()[:320, :320], number, axis=1)).save(path)
        with path.open("ab") as file:
            file.write(bytes(400_000))
    return folder


@pytest.fixture
def local_cluster() -> Iterator[Any]:
    """A scheduler and one worker in this process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def recorded(output: Path) -> Counter[str]:
    import pyarrow.parquet as pq

    parts = [pq.read_table(path) for path in output.glob("parts/*.parquet")]
    rows = [row for part in parts for row in part.to_pylist()]
    return Counter(row["uri"].rsplit("/", 1)[-1] for row in rows if not row["face"])


def workers() -> list[psutil.Process]:
    """Worker processes of this test's cluster."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("spawn_main" in text for text in child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("server", "clean_environment")
class TestFlow:
    def test_killed_workers_are_replaced_and_each_picture_is_there_once(
        self, pictures: Path, model_file: Path, tmp_path: Path, checkout: Path
    ) -> None:
        out = tmp_path / "out"
        killed: list[int] = []

        def kill() -> None:
            """One worker after the first part, another one after the second."""
            deadline = time.monotonic() + 600
            while len(killed) < 2 and time.monotonic() < deadline:
                if len(list(out.glob("parts/*.parquet"))) > len(killed):
                    for victim in [one.pid for one in workers() if one.pid not in killed][:1]:
                        os.kill(victim, signal.SIGKILL)
                        killed.append(victim)
                time.sleep(0.02)

        # As a worker of Prefect loads it: not under the name flows.batch.
        flow: Any = load_flow_from_entrypoint(f"{checkout}/flows/batch.py:batch_inference")
        killer = threading.Thread(target=kill)
        killer.start()
        summary = flow(
            input=str(pictures),
            output=str(out),
            model=str(model_file),
            workers=2,
            share_mb=1,
            project=tmp_path,
        )
        killer.join()
        assert len(killed) == 2
        assert (summary["analysed"], summary["failed"], summary["pictures"]) == (16, 0, 16)
        assert len(summary["parts"]) == 8
        assert recorded(out) == Counter({f"{number:02}.jpg": 1 for number in range(16)})
        assert workers() == []

    def test_the_cluster_of_the_setting(
        self,
        pictures: Path,
        model_file: Path,
        tmp_path: Path,
        local_cluster: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for path in sorted(pictures.iterdir())[4:]:
            path.unlink()
        monkeypatch.setenv("FER_DASK_SCHEDULER", local_cluster.scheduler_address)
        arguments: dict[str, Any] = {
            "input": str(pictures),
            "output": str(tmp_path / "out"),
            "model": str(model_file),
            "share_mb": 1,
            "project": tmp_path,
        }
        summary = batch_inference(**arguments)
        assert (summary["analysed"], len(summary["parts"])) == (4, 2)
        # In its own process where that is asked for, or nothing is left to share out.
        local_cluster.close()
        assert batch_inference(**arguments)["skipped"] == 4
        assert batch_inference(**arguments, workers=0)["skipped"] == 4

    def test_the_number_of_workers_has_limits(self, tmp_path: Path) -> None:
        with pytest.raises(ParameterTypeError, match="workers"):
            batch_inference(input="a", output=str(tmp_path), workers=-1)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], DaskPool]:
    """Makes a pool of the cluster at an address, outside a flow run."""

    def make(address: str) -> DaskPool:
        runner = dask_runner(None, address)
        monkeypatch.setattr(DaskPool, "_runner", staticmethod(lambda: runner))
        return DaskPool()

    return make


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask.task_runners", None)
    with pytest.raises(SettingsError, match=r"not installed \(prefect_dask.* scale"):
        dask_runner(2, None)


def test_a_worker_of_this_machine_gets_its_part_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    runner: Any = dask_runner(3, "tcp://elsewhere:8786")
    assert runner.cluster_kwargs["env"] == {"FER_THREADS": "2"}
    assert runner.cluster_kwargs["security"] is True
    assert runner.address is None
    monkeypatch.setenv("FER_THREADS", "5")
    runner = dask_runner(3, None)
    assert runner.cluster_kwargs["env"] == {"FER_THREADS": "5"}


def test_no_login_is_sent_readable_to_another_machine() -> None:
    elsewhere = ["tcp://10.0.0.5:8786", "10.0.0.5:8786", "tcp://dask.example.org:8786", "ws://h:1"]
    private = ["tls://10.0.0.5:8786", "tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:1"]
    # The server of other tests may have left the address of its database, which is a secret too.
    with temporary_settings(restore_defaults={PREFECT_SERVER_DATABASE_CONNECTION_URL}):
        for address in [*elsewhere, *private]:
            assert dask_runner(None, address).address == address  # type: ignore[attr-defined]
    for setting in (PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_SERVER_DATABASE_PASSWORD):
        with temporary_settings({setting: "u:secret"}):
            for address in elsewhere:
                place = address.rpartition("/")[2]
                wanted = rf"is {address}, .*: .*{setting.name}.* could .* tls://{place} \(docs"
                with pytest.raises(SettingsError, match=wanted) as caught:
                    dask_runner(None, address)
                assert "secret" not in str(caught.value)
            for address in private:
                dask_runner(None, address)
            dask_runner(2, elsewhere[0])
    with (
        temporary_settings({PREFECT_CLIENT_CUSTOM_HEADERS: {"Authorization": "x"}}),
        pytest.raises(SettingsError, match=r"PREFECT_CLIENT_CUSTOM_HEADERS.* could"),
    ):
        dask_runner(None, elsewhere[0])


def test_a_scheduler_that_does_not_answer_is_named(pool: Callable[[str], DaskPool]) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}),
        disable_run_logger(),
        pytest.raises(ScaleError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9\."),
    ):
        pool("tcp://127.0.0.1:9").room()


def test_a_cluster_without_workers_is_told_and_one_with_is_used(
    pool: Callable[[str], DaskPool], local_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "WORKER_SECONDS", 0.3)
    with disable_run_logger():
        dask = pool(local_cluster.scheduler_address)
        assert dask.room() == 4
        local_cluster.scale(0)
        deadline = time.monotonic() + 60
        while local_cluster.scheduler.workers and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ScaleError, match=r"no Dask worker for .* dask worker "):
            dask.room()
        dask._client.close()


class Ended:
    """A share's future that has ended with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> dict[str, Any]:
        raise self.error


def ended(error: Exception) -> DaskPool:
    pool = DaskPool()
    pool._under_way["key"] = (Ended(error), _Given(JOB, SHARE, 7))  # type: ignore[assignment]
    pool._wait = lambda: "key"  # type: ignore[method-assign]
    return pool


def test_a_share_that_kills_its_workers_counts_as_failed() -> None:
    error = distributed.KilledWorker("task", None, 3)
    summary = ended(error).take()
    assert (summary.failed, summary.analysed) == (3, 0)
    assert [one["uri"] for one in summary.problems] == [one.uri for one in SHARE.pictures]


def test_other_errors_of_a_share_end_the_run() -> None:
    with pytest.raises(ShareError, match="Share 7 failed: no such model"):
        ended(PackageError("no such model")).take()
    gone = distributed.client.FutureCancelledError("key", "lost")
    with pytest.raises(ScaleError, match="scheduler has gone"):
        ended(gone).take()


@pytest.mark.parametrize(
    ("error", "tries"), [(ScaleError("gone"), 3), (OSError("reset"), 3), (ShareError("bad"), 1)]
)
def test_the_run_is_tried_again_where_the_cluster_had_gone(
    error: Exception, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    class Failing:
        def with_options(self, task_runner: object) -> Callable[..., BatchSummary]:
            def run(**arguments: Any) -> BatchSummary:
                calls.append(arguments)
                raise error

            return run

    monkeypatch.setattr(shares, "batch_shares", Failing())
    monkeypatch.setattr(shares, "_DELAYS", (0.0, 0.0))
    with disable_run_logger(), pytest.raises(type(error), match=str(error)):
        share_out(
            input="in",
            output="out",
            model="m",
            registry=None,
            faces=FacesParams(),
            csv=False,
            share_bytes=1,
            workers=1,
        )
    assert len(calls) == tries
