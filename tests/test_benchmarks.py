"""What several benchmarks stand on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def loaded(name: str) -> ModuleType:
    """A program of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report() -> ModuleType:
    return loaded("report")


def test_a_worker_answers_line_by_line_whatever_its_libraries_print(
    report: ModuleType, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import report\n"
        "print('a library says hello')\n"
        "def answer(line):\n"
        "    print('and this')\n"
        "    return {'line': line, 'arguments': sys.argv[1:]}\n"
        "report.serve(answer)\n"
    )
    with report.Worker(program, "one") as worker:
        assert worker.ask("first") == {"line": "first", "arguments": ["one"]}
        assert worker.ask("second")["line"] == "second"


def test_a_worker_that_fails_ends_the_benchmark(report: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; sys.stdin.readline(); sys.exit(3)")
    with (
        report.Worker(tmp_path / "program.py") as worker,
        pytest.raises(SystemExit, match="status 3 on: first"),
    ):
        worker.ask("first")


def test_figures_are_given_as_median_with_their_spread(report: ModuleType) -> None:
    assert report.middle([1000.4, 1500.0, 3000.0]) == "1,500 (1,000 to 3,000)"
    assert report.middle([2.0, 1.0], 1) == "1.5 (1.0 to 2.0)"
    assert report.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_simulated_shares_are_those_of_a_real_run(tmp_path: Path) -> None:
    from fer.inference.batch import BatchSummary
    from fer.inference.scale import HerePool

    scale_out = loaded("scale_out")
    done: list[int] = []

    class Here(HerePool):
        def take(self) -> Any:
            job, share = self._waiting.popleft()
            done.append(len(share.pictures))
            return BatchSummary(**scale_out.simulated_share.fn(job.as_dict(), share.pack(), 1))

    scale_out._share_out(Here(), 5, 0.0, 2, str(tmp_path / "out"))
    assert done == [2, 2, 1]
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 3
