"""kill -9 at random moments, and what is left afterwards.

    python benchmarks/kills.py                      # two kills of each kind
    python benchmarks/kills.py --full               # 20, 20, 5 and 5
    python benchmarks/kills.py --kinds batch s3 --kills 3 --seed 7 --out kills.json

What `make up` starts, in a folder of its own: PostgreSQL, S3 (SeaweedFS), a Prefect server, a
worker per pool. Runs are started by deployment, as a schedule or a hand would. At a moment drawn
from the whole length of an undisturbed run, one of these is killed:

    train    the worker of pool gpu during a training on drawn faces; every other time its run too
    batch    the worker of pool cpu during a batch inference; every other time its run too
    server   the Prefect server during a batch inference; it comes back after 1 to 20 s
    s3       the S3 server during a batch inference; likewise

What was killed is started again, as an init system or a cluster would. Then it is asked: has the
run ended well, by itself? Are the results the same, row by row, as those of the undisturbed run,
each picture exactly once? Is there one new version of the model, sound, made of each epoch once?
Do schedules go on? Is there a process that nobody answers for? Heartbeats are 30 s apart here, so
that a dead run is found after 150 s instead of 15 minutes. Exit status 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from served import ENDED, Served

from fer.dataset.scenes import draw_scene
from fer.doctor.machine import processor
from fer.expressions import EXPRESSIONS, Expression
from fer.files import write_json
from fer.inference.outputs import open_output
from fer.reference import FOLDER as SHIPPED
from fer.registry.registry import Registry
from flows.demo import make_project
from flows.local.seaweed import client as s3_client
from flows.local.up import BUCKET, SERVER
from flows.local.up import FOLDER as MAKE_UP

KINDS: Final = ("train", "batch", "server", "s3")
FULL: Final = {"train": 20, "batch": 20, "server": 5, "s3": 5}
EPOCHS: Final = 5
# Seconds per epoch; what is learnt is no matter.
TINY: Final[dict[str, Any]] = {
    "data": {"source": "synthetic", "synthetic": {"images_per_class": 40}},
    "validate": {"min_rows": {"train": 100, "test": 10}},
    "train": {
        "input_size": 48,
        "smaller_first": [],
        "weights": "none",
        "batch_size": 16,
        "head": {"epochs": 1},
        "finetune": {"epochs": EPOCHS - 1, "warmup_epochs": 0.5},
        "early_stopping": {"patience": 10},
    },
    "evaluate": {"bootstrap": 100, "latency_runs": 10},
    "package": {"name": "kills", "description": "Trained for seconds on drawn faces. No model."},
    "gate": {"min_recall": dict.fromkeys(EXPRESSIONS, 0.0)},
}


@dataclass
class Kill:
    """One kill and what was found after it."""

    kind: str
    killed: str
    after_seconds: float  # from the start of the run
    state: str  # of the run at that moment
    tasks: list[str]  # that were running
    down_seconds: float = 0.0
    end: str = ""
    tries: int = 0  # of the flow run
    seconds: float = 0.0  # from the start to the end
    faults: list[str] = field(default_factory=list)


class Trial(Served):
    """Runs that are disturbed, and what must hold of them afterwards."""

    def __init__(self, folder: Path, pictures: int, seed: int, patience: float) -> None:
        super().__init__(folder, patience)
        self.pictures = pictures
        self.seed = seed
        self.draw = random.Random(seed)  # noqa: S311 - which moments, not secrets
        self.token = f"{int(time.time()):x}"  # so that a second series finds nothing done
        self.begun = 0
        self.lengths: dict[str, float] = {}
        self.expected: list[tuple[Any, ...]] = []
        self.paused: list[tuple[str, str]] = []
        self.silenced: list[str] = []

    def set_up(self) -> None:
        """Start the services, fill the bucket, and let no schedule of ours interfere."""
        os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
        if not all(self.stack.status().values()):
            self.stack.up()
        os.environ |= self.stack.environment()
        os.environ["FER_CACHE"] = str(self.folder / "cache")
        models = Registry.open()
        self.model = str(models.register(SHIPPED))
        s3 = s3_client(
            self.stack.s3.endpoint,
            self.stack.s3.access_key,
            self.stack.s3.secret_key,
            attempts=5,
        )
        for number, data in enumerate(drawn(self.pictures, self.seed)):
            s3.put_object(Bucket=BUCKET, Key=f"kills/photographs/{number:04}.jpg", Body=data)
        s3.put_object(Bucket=BUCKET, Key="kills/photographs/text.jpg", Body=b"dear diary\n" * 9)
        for deployment in self.must("/deployments/filter", {}):
            for one in deployment["schedules"]:
                if one["active"]:
                    self.schedule(deployment["id"], one["id"], active=False)
                    self.paused.append((deployment["id"], one["id"]))
        # What is registered here need not go through the gate.
        for one in self.must("/automations/filter", {}):
            if "gate" in one["name"] and one["enabled"]:
                self.stack.ask(f"/automations/{one['id']}", {"enabled": False}, "PATCH")
                self.silenced.append(one["id"])

    def restore(self) -> None:
        """Schedules and automations as they were."""
        for deployment, schedule in self.paused:
            self.schedule(deployment, schedule, active=True)
        for automation in self.silenced:
            self.stack.ask(f"/automations/{automation}", {"enabled": True}, "PATCH")

    def batch(self, output: str) -> dict[str, Any]:
        """Parameters of a batch inference."""
        return {
            "input": f"s3://{BUCKET}/kills/photographs",
            "output": f"s3://{BUCKET}/kills/{self.token}/{output}",
            "model": self.model,
            "part_size": 8,
        }

    def project(self, seed: int) -> Path:
        """A small project; another seed gives other data, another training, another package."""
        folder = self.folder / "project"
        make_project(folder, TINY | {"seed": seed})
        return folder

    def measure(self, kind: str) -> None:
        """An undisturbed run: how long it takes, and what comes out."""
        started = time.monotonic()
        if kind == "train":
            project = self.project(self.seed)
            number = self.start("train/train", {"project": str(project), "submit": True})
        else:
            number = self.start("batch-inference/batch", self.batch("undisturbed"))
        found = self.end(number)
        if found["state_type"] != "COMPLETED":
            raise SystemExit(f"An undisturbed run ended as {found['state']}")
        self.lengths[kind] = time.monotonic() - started
        if kind == "batch":
            self.expected = rows(self.batch("undisturbed")["output"])

    def begin(self, what: str, count: int) -> str:
        """Start a run that finds nothing done; its id."""
        if what == "batch":
            return self.start("batch-inference/batch", self.batch(f"{count}"))
        project = self.project(self.seed + 1 + count)
        return self.start("train/train", {"project": str(project), "submit": True})

    def one(self, kind: str, count: int) -> Kill:
        """Kill once, and look."""
        what = "train" if kind == "train" else "batch"
        if what not in self.lengths:
            self.measure(what)
        with_runs = kind == what and bool(count % 2)
        service = {"train": "worker-gpu", "batch": "worker-cpu", "server": SERVER, "s3": "s3"}[kind]
        while True:
            self.begun += 1
            versions = len(self.versions())
            since = datetime.now(UTC).isoformat()
            number = self.begin(what, self.begun)
            started = time.monotonic()
            moment = self.draw.uniform(0, self.lengths[what])
            time.sleep(moment)
            found = self.run(number)
            if found["state_type"] not in ENDED:
                break
            # It was faster than the undisturbed one.
            if found["state_type"] != "COMPLETED":
                raise SystemExit(f"Before anything was killed, a run ended as {found['state']}")
        killed = service + (" and its run" if with_runs else "")
        kill = Kill(kind, killed, round(moment, 1), found["state"]["name"], self.tasks(since))
        self.kill(service, with_runs=with_runs)
        if kind == what:
            if with_runs and (left := self.left(60)):
                kill.faults.append(f"left after the kill: {left}")
            self.stack.start_worker(service.removeprefix("worker-"))
        else:
            kill.down_seconds = round(self.draw.uniform(1, 20), 1)
            time.sleep(kill.down_seconds)
            if kind == "server":
                self.stack.start_server()
            else:
                self.stack.s3.start(BUCKET)
        found = self.end(number)
        kill.seconds = round(time.monotonic() - started, 1)
        kill.end, kill.tries = found["state"]["name"], found["run_count"]
        if found["state_type"] != "COMPLETED":
            kill.faults.append(f"ended as {found['state']['name']}: {found['state']['message']}")
        elif kind == "train":
            kill.faults += self.faults_of_training(versions)
        else:
            kill.faults += self.faults_of_results(self.batch(f"{self.begun}")["output"])
        if kind == "server":
            kill.faults += self.faults_of_schedules()
        if left := self.left(60):
            kill.faults.append(f"left at the end: {left}")
        return kill

    def versions(self) -> list[Any]:
        """Versions of the small model."""
        models = Registry.open()
        return models.versions("kills") if "kills" in models.models() else []

    def faults_of_training(self, before: int) -> list[str]:
        """One more version, sound; each epoch once."""
        faults = []
        versions = self.versions()
        if len(versions) != before + 1:
            faults.append(f"{len(versions) - before} new versions")
        if versions and not (report := Registry.open().verify(str(versions[-1]))).ok:
            faults.append(f"{versions[-1]} is damaged: {report}")
        table = next((self.folder / "project/reports/training/plots/metrics").rglob("accuracy.tsv"))
        steps = [int(line.split("\t")[0]) for line in table.read_text().splitlines()[1:]]
        if steps != list(range(steps[0], steps[0] + EPOCHS)):
            faults.append(f"epochs {steps}")
        return faults

    def faults_of_results(self, output: str) -> list[str]:
        """The same rows as the undisturbed run's."""
        found = rows(output)
        if found == self.expected:
            return []
        extra, missing = set(found) - set(self.expected), set(self.expected) - set(found)
        return [f"{len(found)} rows, not {len(self.expected)}: {extra=} {missing=}"[:2000]]

    def faults_of_schedules(self) -> list[str]:
        """A schedule of every minute fires, and its run ends well."""
        since = datetime.now(UTC).isoformat()
        deployment = self.must("/deployments/name/batch-inference/batch")["id"]
        path = f"/deployments/{deployment}/schedules"
        cron = {"cron": "* * * * *", "timezone": "UTC"}
        body = [{"schedule": cron, "active": True, "parameters": self.batch("undisturbed")}]
        (schedule,) = self.must(path, body)
        runs = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {
                "state": {"type": {"any_": ["COMPLETED"]}},
                "start_time": {"after_": since},
            },
        }

        def fired() -> bool | None:
            found = self.stack.ask("/flow_runs/filter", runs) or []
            return any(one["auto_scheduled"] for one in found) or None

        try:
            self.wait(fired, 600, "no scheduled run has ended")
        except SystemExit as error:
            return [str(error)]
        finally:
            self.stack.ask(f"{path}/{schedule['id']}", {}, "DELETE")
        return []


def drawn(count: int, seed: int) -> list[bytes]:
    """JPEGs of drawn people, no two the same."""
    generator = np.random.default_rng(seed)
    everyone = list(Expression)
    scenes = [draw_scene([everyone[n % 7]], generator, 400, 300)[0] for n in range(min(count, 14))]
    found = []
    for number in range(count):
        picture = np.roll(scenes[number % len(scenes)], number // len(scenes), axis=1)
        found.append(cv2.imencode(".jpg", picture)[1].tobytes())
    return found


def rows(output: str) -> list[tuple[Any, ...]]:
    """What a batch's results say, of every face and every picture set aside, in order."""
    import pyarrow.parquet as pq

    place = open_output(output)
    found = []
    for kind in ("parts", "quarantine"):
        for name in place.names(kind):
            for row in pq.read_table(BytesIO(place.read(name))).to_pylist():
                for name in ("run_id", "analysed_at"):
                    row.pop(name)
                # Another order of faces in a batch may change a last digit.
                row = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                found.append((kind, row["uri"], row.get("face"), json.dumps(row, default=str)))
    return sorted(found, key=str)


def main() -> None:
    """Kill, look, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--kills", type=int, default=2, help="of each kind")
    parser.add_argument("--full", action="store_true", help=f"instead: {FULL}")
    parser.add_argument("--pictures", type=int, default=150, help="of a batch inference")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the data")
    parser.add_argument("--patience", type=float, default=3600, help="seconds that a run may take")
    parser.add_argument("--folder", type=Path, default=Path("build/kills"), help="as of make up")
    parser.add_argument("--out", type=Path, help="the record as JSON; build/kills.json by default")
    parser.add_argument("--keep", action="store_true", help="leave services and data")
    options = parser.parse_args()
    if options.folder.resolve() == MAKE_UP.resolve() and not options.keep:
        parser.error(f"{MAKE_UP} is make up's own, and would be removed at the end: add --keep")
    out = options.out or options.folder.parent / "kills.json"
    trial = Trial(options.folder, options.pictures, options.seed, options.patience)
    record: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores of {processor()}",
        "seed": options.seed,
        "pictures": options.pictures,
        "epochs": EPOCHS,
        "kills": [],
    }
    print(
        "kind    killed                   after s  at state    tasks                    "
        "tries  end        took s"
    )
    try:
        trial.set_up()
        for kind in options.kinds:
            for count in range(FULL[kind] if options.full else options.kills):
                kill = trial.one(kind, count)
                record["kills"].append(asdict(kill))
                record["undisturbed_seconds"] = trial.lengths
                write_json(out, record)
                print(
                    f"{kill.kind:8}{kill.killed:25}{kill.after_seconds:7.1f}  {kill.state:12}"
                    f"{', '.join(kill.tasks)[:23]:25}{kill.tries:5}  {kill.end:10}"
                    f"{kill.seconds:7.1f}  {'; '.join(kill.faults) or 'as it should be'}",
                    flush=True,
                )
    finally:
        trial.restore()
        if not options.keep:
            trial.stack.down(purge=True)
            shutil.rmtree(trial.folder, ignore_errors=True)
    bad = sum(bool(kill["faults"]) for kill in record["kills"])
    print(f"{len(record['kills'])} kills, {bad} with a fault. {out}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
