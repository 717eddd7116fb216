"""Fixtures that every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

CHECKOUT = Path(__file__).resolve().parent.parent

# Nothing that tests start may report usage, and no settings of the developer's may leak in.
os.environ.update(
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    TF_CPP_MIN_LOG_LEVEL="3",
    AWS_EC2_METADATA_DISABLED="true",
)
for name in [name for name in os.environ if name.startswith("FER_")]:
    del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--full: the numbers that a release must withstand, instead of those that a commit must."""
    parser.addoption("--full", action="store_true", help="many more processes, kills and cuts")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of trainings come first: of two processes, one has them and is done last."""
    items.sort(key=lambda item: item.path.parent.name != "training")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests stay together in one process (`-n 2`): those that share what they made.

    Tests of one file do, and those of trainings share whole trainings.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "training" if file.startswith("tests/training/") else file

    return ByFile(config, log)


_status = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    session.config.stash[_status] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once with the status of the tests.

    Each test has ended what it started. What is left are threads of TensorFlow, gRPC, OpenCV and
    Dask in one process that no user has, and now and then one of them crashes while the
    interpreter is taken down, after the last test has passed.
    """
    if _status in config.stash and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_status])


# Time is for pytest to limit: a busy machine is no failure. CI tries the same examples each time,
# so that it fails only for what a change did; a developer's runs look for new ones.
hypothesis_settings.register_profile(
    "project",
    deadline=None,
    max_examples=60,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hypothesis_settings.load_profile("project")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own."""
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is a run with --full."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The project's folder."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real FER2013, weights and photographs, where they lie beside the checkout."""
    folder = CHECKOUT.parent / "shared"
    if not (folder / "data" / "fer2013.zip").exists():
        pytest.skip("the real FER2013 and photographs are not beside this checkout")
    return folder


_BRIGHTNESS = """
import sys, tempfile
import tensorflow as tf

centres = tf.constant([[k + 0.5 for k in range(7)]], tf.float32)

def serve(faces):
    mean = tf.reduce_mean(faces, axis=[1, 2])
    logits = -tf.square(mean / (256 / 7) - centres)
    return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

module = tf.Module()
module.serve = tf.function(serve, [tf.TensorSpec((1, 48, 48, 1), tf.float32, "faces")])
with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
    model = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
open(sys.argv[1], "wb").write(model)
"""


@pytest.fixture(scope="session")
def litert_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.tflite by the project's contract whose answer is known: the mean grey level.

    Seven equal ranges of grey levels stand for the seven expressions, in order.
    """
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    command = [sys.executable, "-c", _BRIGHTNESS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert path.is_file(), done.stderr
    return path
