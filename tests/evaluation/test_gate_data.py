"""Challenger and champion on the same images: McNemar, recall floors, latency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from fer.dataset.table import FaceTable
from fer.errors import GateError, ParamsError, TableError
from fer.evaluation.gate import check_gate
from fer.evaluation.gate_data import judge, mcnemar
from fer.expressions import EXPRESSIONS
from fer.params import GateParams, load_params
from fer.registry.package import ModelPackage, write_package

NO_FLOORS = dict.fromkeys(EXPRESSIONS, 0.0)
LIMITS: dict[str, Any] = {
    "min_accuracy": 0.6,
    "min_macro_f1": 0.5,
    "max_calibration_error": 0.5,
    "max_accuracy_drop": 0.5,
    "significance": 0.05,
    "min_recall": NO_FLOORS,
    "max_latency_ms": 1e6,
}
PER_CLASS = 20
STEP = 30  # grey levels between the faces of two neighbouring classes


def limits(**changed: Any) -> GateParams:
    return GateParams(**(LIMITS | changed))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (0, 5, 0.0625), (10, 25, 0.016661), (300, 200, 8.9e-6)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, rel=0.02)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_thousands_of_images() -> None:
    assert 0 < mcnemar(1700, 1889) < 0.01
    assert mcnemar(0, 3589) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="no counts"):
        mcnemar(-1, 3)


@pytest.fixture(scope="module")
def table() -> FaceTable:
    """140 grey test images; the darker of two classes has the lower index."""
    expression = np.repeat(np.arange(7, dtype=np.int8), PER_CLASS)
    n = len(expression)
    noise = np.random.default_rng(0).integers(-3, 4, size=(n, 48, 48))
    pixels = (expression[:, None, None].astype(int) * STEP + 20 + noise).astype(np.uint8)
    split = np.array(["test"] * n)
    return FaceTable(
        name=np.array([f"{index}.png" for index in range(n)]),
        pixels=pixels,
        expression=expression,
        split=split,
        sha256=np.array([f"{index:064d}" for index in range(n)]),
        cleaning=np.array(["keep"] * n),
        near_twin=np.zeros(n, bool),
    )


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """`model(*blind)`: a package that never names the blind classes, and is right otherwise."""
    import onnx
    from onnx import TensorProto, helper

    def make(*blind: int) -> ModelPackage:
        # logit k = -(mean - centre k)^2, written out: linear in the mean but for a common term.
        centres = [20.0 + STEP * index for index in range(7)]
        slopes = [2 * centre / STEP**2 for centre in centres]
        biases = [-(centre**2) / STEP**2 for centre in centres]
        for index in blind:
            biases[index] = -1e6
        floats = TensorProto.FLOAT
        nodes = [
            helper.make_node("Cast", ["faces"], ["levels"], to=floats),
            helper.make_node("ReduceMean", ["levels", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
            helper.make_node("Mul", ["column", "slopes"], ["product"]),
            helper.make_node("Add", ["product", "biases"], ["near"]),
            helper.make_node("Mul", ["near", "sharp"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ]
        constants = [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
            helper.make_tensor("slopes", floats, [7], slopes),
            helper.make_tensor("biases", floats, [7], biases),
            helper.make_tensor("sharp", floats, [], [10.0]),
        ]
        outputs = [
            helper.make_tensor_value_info(name, floats, ["n", 7])
            for name in ("logits", "probabilities")
        ]
        faces = helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", "h", "w", 1])
        graph = helper.make_graph(nodes, "grey", [faces], outputs, constants)
        opset = [helper.make_opsetid("", 18)]
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
        return write_package(
            tmp_path / "-".join(["package", *map(str, blind)]),
            name="grey",
            description="",
            files={"model.onnx": path},
            metrics={},
            lineage={},
        )

    return make


def test_a_good_first_model(table: FaceTable, model: Any) -> None:
    seen: list[tuple[int, int]] = []
    decision = judge(
        model(),
        None,
        table,
        limits(min_recall=NO_FLOORS | {"fear": 1.0}),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert decision.passed
    assert decision.unchecked == []
    ours = decision.figures["challenger"]
    assert (ours["accuracy"], ours["recall"]["fear"]) == (1.0, 1.0)
    assert ours["latency_ms"] > 0
    assert (decision.figures["images"], seen) == (140, [(140, 140)])
    assert "champion" not in decision.figures
    assert json.loads(json.dumps(decision.document()))["figures"]["test_set"]


def test_a_class_that_was_given_up(table: FaceTable, model: Any) -> None:
    decision = judge(model(2), None, table, limits(min_recall=NO_FLOORS | {"fear": 0.2}))
    assert not decision.passed
    assert [check.name for check in decision.checks if not check.passed] == ["recall_fear"]
    assert "recall_fear 0.0000 is below 0.2" in decision.text


def test_a_challenger_that_is_significantly_worse(table: FaceTable, model: Any) -> None:
    params = limits()
    decision = judge(model(2), model(), table, params)
    assert [check.name for check in decision.checks if not check.passed] == ["mcnemar"]
    assert decision.figures["mcnemar"] == {
        "both_right": 120,
        "only_challenger_right": 0,
        "only_champion_right": 20,
        "p_value": pytest.approx(2 / 2**20),
    }
    assert "of 20 images that one alone gets right, it gets 0" in decision.text
    with pytest.raises(GateError, match="significantly worse"):
        decision.require()
    # The other way round it is significantly better, which no gate minds.
    assert judge(model(), model(2), table, params).passed


def test_models_that_differ_by_chance(table: FaceTable, model: Any) -> None:
    decision = judge(model(2), model(3), table, limits())
    assert decision.passed
    found = decision.figures["mcnemar"]
    assert (found["only_challenger_right"], found["only_champion_right"]) == (20, 20)
    assert found["p_value"] == 1.0


def test_the_accuracy_may_fall_only_so_far(table: FaceTable, model: Any) -> None:
    params = limits(max_accuracy_drop=0.1, significance=0)
    decision = judge(model(2), model(), table, params)
    failed = [check.name for check in decision.checks if not check.passed]
    assert failed == ["accuracy_against_champion"]


def test_a_slow_model(table: FaceTable, model: Any) -> None:
    decision = judge(model(), None, table, limits(max_latency_ms=1e-6))
    assert [check.name for check in decision.checks if not check.passed] == ["latency_ms"]


def test_a_table_without_test_images(table: FaceTable, model: Any) -> None:
    with pytest.raises(TableError, match="no test image"):
        judge(model(), None, table.rows(np.zeros(len(table), bool)), limits())


def test_recorded_figures_leave_open_what_they_cannot_tell() -> None:
    params = limits(min_recall=NO_FLOORS | {"fear": 0.2})
    recorded = {"test": {"accuracy": 0.7, "macro_f1": 0.6, "ece": 0.02}, "test_set": "t"}
    decision = check_gate(recorded, recorded, params)
    assert decision.passed
    assert decision.unchecked == ["min_recall", "max_latency_ms", "significance"]
    assert "Not checked, for want of the test images: min_recall" in decision.text


def test_the_project_s_own_gate(checkout: Path, tmp_path: Path) -> None:
    text = (checkout / "params.yaml").read_text()
    gate = load_params(checkout / "params.yaml").gate
    assert tuple(dict(gate.min_recall)) == EXPRESSIONS
    assert gate.significance == 0.05
    (tmp_path / "params.yaml").write_text(text.replace("    fear:", "    faer:"))
    with pytest.raises(ParamsError, match=r"did you mean 'gate\.min_recall\.fear'"):
        load_params(tmp_path / "params.yaml")


def test_the_command_judges_records_and_promotes(
    table: FaceTable, model: Any, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer.cli.models import app
    from fer.registry import Registry

    monkeypatch.setenv("FER_REGISTRY", str(tmp_path / "registry"))
    faces = tmp_path / "faces.parquet"
    table.write(faces)
    registry, runner = Registry.open(), CliRunner()

    def run(*arguments: str) -> Result:
        options = ["--data", str(faces), "--params", str(checkout / "params.yaml"), "--json"]
        return runner.invoke(app, [*arguments, *(options if arguments[0] == "gate" else [])])

    registry.register(model(3))  # never says happy
    refused = run("gate", "grey:1")
    assert isinstance(refused.exception, GateError)
    assert "recall_happy 0.0000 is below 0.65" in str(refused.exception)
    document = json.loads(refused.stdout)
    assert (document["passed"], document["champion"]) == (False, None)
    assert isinstance(run("promote", "grey:1").exception, GateError)

    registry.register(model())
    passed = json.loads(run("gate", "grey:2").stdout)
    assert passed["passed"] is True
    assert registry.state("grey", 2).gate == {
        name: value for name, value in passed.items() if name not in {"name", "version"}
    }
    assert run("promote", "grey:2").exit_code == 0
    # The other one against the champion, on the same images: McNemar's figures are kept.
    assert isinstance(run("gate", "grey:1").exception, GateError)
    gate = registry.state("grey", 1).gate
    assert gate is not None
    assert gate["champion"] == 2
    assert gate["figures"]["mcnemar"]["only_champion_right"] == PER_CLASS
    assert run("promote", "grey:1", "--force", "--reason", "a trial").exit_code == 0
    shown = runner.invoke(app, ["show", "grey:1"]).stdout
    assert "FORCED" in shown
    assert "a trial" in shown
    assert "not passed against version 2" in shown
