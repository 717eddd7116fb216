"""The public face: what `fer` offers, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fer

HEAVY = (
    "boto3", "cv2", "dlib", "great_expectations", "keras", "matplotlib", "numpy", "onnxruntime",
    "pandas", "prefect", "pyarrow", "tensorflow",
)  # fmt: skip


def test_all_is_sorted_and_every_name_loads() -> None:
    assert fer.__all__ == sorted(fer.__all__)
    for name in fer.__all__:
        assert getattr(fer, name) is not None
    assert set(fer.__all__) <= set(dir(fer))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        fer.Recogniser  # noqa: B018


def imported(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_importing_fer_imports_nothing_heavy() -> None:
    modules = imported("import fer")
    assert "fer" in modules
    assert not modules & {*HEAVY, "pydantic", "rich", "typer"}


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "from typer.testing import CliRunner\nfrom fer.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    )
    modules = imported(code)
    assert "typer" in modules
    assert not modules & set(HEAVY)


def test_recognising_needs_no_tensorflow() -> None:
    modules = imported("from fer import Recognizer, Registry\nimport fer.inference.batch")
    assert not modules & {"tensorflow", "keras", "prefect", "dvc", "great_expectations"}
