"""Everything for real: a server, the deployments, a worker, a schedule that fires by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer.registry.registry import Registry
from flows import automations

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PAGE = 20
KINDS = ("logs", "artifacts", "flow_runs", "task_runs", "deployments", "events", "work_pools")
KINDS += ("automations", "block_documents", "variables")


def free_port() -> int:
    """A free port below the range that the system hands out to clients."""
    for port in range(21000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


@dataclass
class Prefect:
    """A running server, and a checkout that its deployments are made from."""

    api: str
    checkout: Path
    environment: dict[str, str]
    logs: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.api + path, data, {"Content-Type": "application/json"}
        )
        # On SQLite the server may stall for as long as its lock time-out, 60 s.
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def every(self, kind: str, page: int = PAGE) -> list[dict[str, Any]]:
        """All that the server has of a kind, page by page."""
        found: list[dict[str, Any]] = []
        if kind == "events":
            answer = self.ask("/events/filter", {"limit": page})
            while True:
                found += answer["events"]
                if answer["next_page"] is None:
                    return found
                answer = self.ask("/events/filter/next?" + answer["next_page"].partition("?")[2])
        while more := self.ask(f"/{kind}/filter", {"limit": page, "offset": len(found)}):
            found += more
        return found

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def doctor(self) -> dict[str, Any]:
        """Findings by name."""
        done = subprocess.run(
            [sys.executable, "-m", "fer", "doctor", "--json"],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout, done.stderr
        return {one["name"]: one for one in json.loads(done.stdout)["checks"]}

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.logs,  # a worker starts anywhere; the deployment knows its checkout
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(errors="replace")[-6000:]

    def run(self, flow: str, deployment: str, **parameters: object) -> str:
        found = self.ask(f"/deployments/name/{flow}/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        return str(self.ask(path, {"parameters": parameters})["id"])

    def set_state(self, run: str, state: str) -> str:
        """The state that the server put a run into, which may be another."""
        answer = self.ask(f"/flow_runs/{run}/set_state", {"state": {"type": state}})
        return str(answer["state"]["type"])

    def runs(self, deployment: str, *states: str) -> list[dict[str, Any]]:
        body = {
            "deployments": {"name": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
        }
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", body)
        return found

    def run_log(self, run: str) -> str:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.ask("/logs/filter", body))


def end(process: subprocess.Popen[bytes], patience: float = 40) -> None:
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Callable[[], Any], seconds: float, why: Callable[[], str]) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, why()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    base = tmp_path_factory.mktemp("server")
    checkout = base / "checkout"
    checkout.mkdir()
    for name in ("prefect.yaml", "params.yaml"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "flows", checkout / "flows")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "FER_", "AWS_"))
    } | {
        "PREFECT_HOME": str(base / "home"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "FER_BATCH_INPUT": str(base / "photographs"),
        "FER_BATCH_OUTPUT": str(base / "results"),
        "FER_REGISTRY": str(base / "registry"),
        "FER_CACHE": str(base / "cache"),
        # Must be in no log, see below.
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-K7MDENG",
    }
    server = Prefect(api, checkout, environment, base)
    process = server.start(
        "server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)
    )
    try:

        def healthy() -> bool:
            assert process.poll() is None, server.log("server")
            try:
                return server.ask("/health") is True
            except OSError:
                return False

        wait_for(healthy, 180, lambda: server.log("server"))
        yield server
    finally:
        end(process)


@pytest.fixture(scope="module")
def deployed(prefect: Prefect) -> str:
    """What the first deployment said."""
    return prefect.command("flows.deploy")


@pytest.mark.timeout(900)
def test_deployed_scheduled_and_cancelled(
    prefect: Prefect,
    deployed: str,
    photographs: Path,
    project: Callable[..., Path],
    put_package: Callable[..., None],
    tmp_path: Path,
) -> None:
    put_package(tmp_path, 0.7)
    models = Registry.open(prefect.environment["FER_REGISTRY"])
    version = models.register(tmp_path / "models" / "package")
    models.promote(version.name, version.number)
    shutil.copytree(photographs, prefect.environment["FER_BATCH_INPUT"])

    assert "Created: cpu, gpu, limit dvc-repro, limit gpu" in deployed
    assert "Created: nothing new" in prefect.command("flows.deploy")
    prefect.command(
        *("prefect", "deployment", "schedule", "create", "batch-inference/batch"),
        *("--cron", "* * * * *", "--timezone", "Europe/Berlin"),
    )

    assert "no worker is online" in prefect.doctor()["pool cpu"]["text"]

    worker = prefect.start("worker", "prefect", "worker", "start", "--pool", "cpu")
    try:
        wait_for(
            lambda: prefect.doctor()["pool cpu"]["status"] == "ok",
            180,
            lambda: prefect.log("worker"),
        )
        # A stage that would run for ten minutes, in a project of its own.
        folder = project({"fetch": {"cmd": "echo $$ > pid; echo begun; exec sleep 600"}})
        pid_file = folder / "pid"
        slow = prefect.run("fetch-and-validate", "data", project=str(folder))
        wait_for(pid_file.exists, 120, lambda: prefect.log("worker"))
        time.sleep(0.5)
        pid = int(pid_file.read_text())
        session = os.getsid(pid)

        (done, *_) = wait_for(
            lambda: prefect.runs("batch", "COMPLETED", "FAILED", "CRASHED"),
            300,
            lambda: prefect.log("worker") + prefect.log("server"),
        )
        assert done["state_type"] == "COMPLETED", prefect.run_log(done["id"])
        assert done["auto_scheduled"]
        assert "1 analysed with 1 faces" in done["state"]["message"]
        assert f"model:{version}" in done["tags"]
        assert list((Path(prefect.environment["FER_BATCH_OUTPUT"]) / "parts").iterdir())

        cancel = {"state": {"type": "CANCELLING"}}
        prefect.ask(f"/flow_runs/{slow}/set_state", cancel)
        wait_for(
            lambda: prefect.ask(f"/flow_runs/{slow}")["state_type"] == "CANCELLED",
            150,
            lambda: prefect.log("worker"),
        )
        assert "begun" in prefect.run_log(slow)
        with pytest.raises(ProcessLookupError):
            os.killpg(session, 0)
    finally:
        end(worker)

    kept = {kind: prefect.every(kind) for kind in KINDS}
    for kind, found in kept.items():
        assert prefect.environment["AWS_SECRET_ACCESS_KEY"] not in json.dumps(found), kind
    # More than a page was looked through, each once.
    for kind in ("logs", "events"):
        assert len(kept[kind]) > PAGE
        assert len({one["id"] for one in kept[kind]}) == len(kept[kind])


def test_a_schedule_that_was_paused_stays_so(prefect: Prefect, deployed: str) -> None:
    schedule = ("prefect", "--no-prompt", "deployment", "schedule")

    def active() -> dict[str, list[bool]]:
        found = {one["name"]: one["schedules"] for one in prefect.every("deployments")}
        return {name: [one["active"] for one in found[name]] for name in ("data", "monitor")}

    assert active() == {"data": [True], "monitor": [True]}, "a new one is active"
    try:
        prefect.command(*schedule, "pause", "--all")
        prefect.command("flows.deploy")
        assert active() == {"data": [False], "monitor": [False]}
    finally:
        prefect.command(*schedule, "resume", "--all")
    assert active() == {"data": [True], "monitor": [True]}
    # One made by hand has no slug, and is replaced: docs/operations.md.
    prefect.command(*schedule, "create", "monitor/monitor", "--cron", "0 0 1 1 *")
    assert active()["monitor"] == [True, True]
    prefect.command("flows.deploy")
    assert active()["monitor"] == [True]


def test_a_parameter_out_of_range_starts_nothing(prefect: Prefect, deployed: str) -> None:
    # A name that the flow does not have passes here, and fails the run before it begins.
    for wrong in ({"part_size": 0}, {"share_mb": "many"}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            prefect.run("batch-inference", "batch", **wrong)
        assert caught.value.code in {409, 422}
        assert next(iter(wrong)) in caught.value.read().decode()


@pytest.mark.parametrize(
    ("flow", "deployment", "second"),
    [("monitor", "monitor", "CANCELLED"), ("fetch-and-validate", "data", "SCHEDULED")],
)
def test_a_second_run_beside_the_first(
    prefect: Prefect, deployed: str, flow: str, deployment: str, second: str
) -> None:
    """As of a schedule that overlaps itself; states are set as a worker would set them."""
    runs = [prefect.run(flow, deployment) for _ in range(2)]
    states = [prefect.set_state(run, "PENDING") for run in runs]
    assert states == ["PENDING", second]
    for run in runs:
        prefect.set_state(run, "CANCELLED")


def test_a_crashed_run_is_tried_again_but_not_for_ever(prefect: Prefect, deployed: str) -> None:
    run = prefect.run("batch-smoke", "smoke")

    def state() -> str:
        return str(prefect.ask(f"/flow_runs/{run}")["state_type"])

    def crash(*names: str) -> None:
        for name in (*names, "CRASHED"):
            assert prefect.set_state(run, name) == name

    for _ in range(automations.MOST_TRIES - 1):
        crash("PENDING", "RUNNING")
        wait_for(lambda: state() == "SCHEDULED", 120, lambda: prefect.log("server"))
    crash("PENDING", "RUNNING")
    time.sleep(20)
    assert state() == "CRASHED"


def test_a_run_that_never_begins_is_tried_again_once(prefect: Prefect, deployed: str) -> None:
    run = prefect.run("batch-smoke", "smoke")

    def state() -> str:
        return str(prefect.ask(f"/flow_runs/{run}")["state_type"])

    for name in ("PENDING", "CRASHED"):
        assert prefect.set_state(run, name) == name
    wait_for(lambda: state() == "SCHEDULED", 120, lambda: prefect.log("server"))
    for name in ("PENDING", "CRASHED"):
        assert prefect.set_state(run, name) == name
    time.sleep(20)
    assert state() == "CRASHED"


@dataclass
class Receiver:
    """A web server that keeps what it is sent."""

    url: str
    said: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            assert self.path == "/T0/jTx9QwErTy"
            found.said.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}/T0/jTx9QwErTy")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


# Everything that emits, as its flows do it; no worker is needed.
STORY = """
import sys
from pathlib import Path

from prefect import flow, tags
from prefect.events import emit_event
from flows import events
from flows.data import fetch_and_validate
from flows.registration import register
from flows.release import gate

project, registry = Path(sys.argv[1]), sys.argv[2]
fetch_and_validate(project=project)

@flow
def registering():
    return register(project, registry, "", gate="awaited")

@flow(name="failing")
def failing():
    raise ValueError('a "breach"')

gate(model=str(registering()), registry=registry, project=project)
for _ in range(2):
    events.drift_found("any", 1, "0" * 64, {"psi": 0.4})
pool = {"prefect.resource.id": "prefect.work-pool.gone", "prefect.resource.name": "gpu"}
emit_event("prefect.work-pool.not-ready", pool)
failing(return_state=True)  # not one of ours: nobody is told
with tags("fer"):
    failing(return_state=True)
"""
STAGES: dict[str, dict[str, object]] = {
    "fetch": {"cmd": "cp given source", "outs": ["source"]},
    "validate": {"cmd": "echo fine", "deps": ["source"]},
    "prepare": {
        "cmd": "mkdir -p data/prepared; cp source data/prepared/faces.parquet",
        "deps": ["source"],
        "outs": ["data/prepared"],
    },
}


@pytest.mark.timeout(900)
def test_events_start_runs_and_failures_are_notified(
    prefect: Prefect,
    deployed: str,
    receiver: Receiver,
    project: Callable[..., Path],
    put_package: Callable[..., None],
    put_faces: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    first = deployed.rpartition("Automations: created ")[2]
    assert first.count("fer: ") == 6, "no address, so nobody to be told"
    prefect.environment["FER_NOTIFY_URL"] = receiver.url
    said = prefect.command("flows.deploy")
    assert "fer: a failed run is notified" in said.partition("Automations: created ")[2]

    folder = project(STAGES)
    put_faces(folder / "given")
    # A stand-in of a model, on drawn images: a gate that any model passes.
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["gate"] |= {"min_accuracy": 0.0, "min_macro_f1": 0.0, "max_calibration_error": 1.0}
    recall = dict.fromkeys(params["gate"]["min_recall"], 0.0)
    params["gate"] |= {"min_recall": recall, "max_latency_ms": 10_000}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    put_package(folder, 0.7)
    (prefect.checkout / "story.py").write_text(STORY)
    told = prefect.command("story", str(folder), str(tmp_path / "registry"))

    def texts(event: str) -> list[str]:
        return [one["text"] for one in receiver.said if one["event"] == f"prefect.{event}"]

    def complete() -> bool:
        # The pool cpu is told of too, where a busy machine's worker is late.
        pools = [one.startswith("Work pool gpu has no") for one in texts("work-pool.not-ready")]
        return any(pools) and all(map(texts, ("flow-run.Failed", "flow-run.Late")))

    wait_for(complete, 180, lambda: told + prefect.log("server"))
    (failed,) = texts("flow-run.Failed")
    assert failed.startswith("failing, run ")
    assert ': Failed. Flow run encountered an exception: ValueError: a "breach"' in failed
    assert all(": Late. " in text for text in texts("flow-run.Late"))

    started = {name: prefect.runs(name, "SCHEDULED") for name in ("train", "gate", "smoke")}
    train = sorted(json.dumps(one["parameters"], sort_keys=True) for one in started["train"])
    assert train == [
        '{"ask_source": true, "submit": true}',  # twice drift, once a training
        '{"check_data": false, "submit": true}',  # new data
    ]
    registry = str(tmp_path / "registry")
    model = {"model": "fer2013-efficientnetb2:1", "registry": registry}
    digest = Registry.open(registry).resolve(model["model"]).digest
    assert [one["parameters"] for one in started["gate"]] == [model | {"digest": digest}]
    assert [one["parameters"] for one in started["smoke"]] == [model]
    everyone = [one for found in started.values() for one in found]
    assert {one["created_by"]["type"] for one in everyone} == {"AUTOMATION"}

    secret = receiver.url.rpartition("/")[2]
    shown = [prefect.ask(f"/{kind}/filter", {}) for kind in ("automations", "block_documents")]
    shown += [prefect.ask(f"/{kind}/filter", {}) for kind in ("events", "logs")]
    assert secret not in json.dumps(shown) + said + told
    assert secret not in (prefect.logs / "server.log").read_text()


@pytest.mark.timeout(600)
def test_automations_are_applied_as_often_as_one_likes(prefect: Prefect, deployed: str) -> None:
    from prefect.automations import Automation, DoNothing, EventTrigger
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.api}):
        stranger = Automation(
            name="fer: by hand", trigger=EventTrigger(expect={"e"}), actions=[DoNothing()]
        ).create()
        with get_client(sync_client=True) as client:
            ids = {
                name: client.read_deployment_by_name(name).id
                for name in (automations.TRAIN, automations.GATE, automations.SMOKE)
            }
            wanted = automations.work(ids)
            automations.apply(client, wanted)  # without notifications, wherever they came from
            assert str(automations.apply(client, wanted)) == "nothing new"
            before = {one.name: one.id for one in client.read_automations()}

            first, second, third, *_ = wanted
            client.pause_automation(before[first.name])
            changed = [
                first.model_copy(update={"description": "Other words."}),
                second.model_copy(update={"trigger": EventTrigger(expect={"other"})}),
                third,
                third.model_copy(update={"name": "fer: new"}),
            ]
            changes = automations.apply(client, changed)
            assert changes.created == ("fer: new",)
            assert changes.updated == (first.name, second.name)
            assert changes.removed == tuple(sorted(one.name for one in wanted[3:]))
            assert str(automations.apply(client, changed)) == "nothing new"

            after = {one.name: one for one in client.read_automations()}
            assert set(after) == {one.name for one in changed} | {stranger.name}
            assert after[second.name].id == before[second.name]
            assert after[second.name].trigger.expect == {"other"}
            assert after[first.name].description == "Other words."
            assert not after[first.name].enabled, "an operator has paused it"
            automations.apply(client, wanted)
            client.delete_automation(stranger.id)
