from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fer.errors import GateError
from fer.evaluation.gate import check_gate
from fer.expressions import EXPRESSIONS
from fer.params import GateParams, RecallParams

PARAMS = GateParams(
    min_accuracy=0.6,
    min_macro_f1=0.5,
    max_calibration_error=0.05,
    max_accuracy_drop=0.005,
    significance=0.05,
    min_recall=RecallParams(**dict.fromkeys(EXPRESSIONS, 0.2)),
    max_latency_ms=100,
)


def metrics(
    accuracy: float = 0.65, macro_f1: float = 0.6, ece: float = 0.02, test_set: str = "one"
) -> dict[str, Any]:
    return {
        "test": {"accuracy": accuracy, "macro_f1": macro_f1, "ece": ece},
        "test_set": test_set,
    }


def test_a_good_first_model_passes() -> None:
    decision = check_gate(metrics(), None, PARAMS)
    assert decision.passed
    assert [check.name for check in decision.checks] == [
        "accuracy",
        "macro_f1",
        "calibration_error",
    ]
    decision.require()
    assert json.loads(json.dumps(decision.document()))["passed"] is True


@pytest.mark.parametrize(
    ("candidate", "failed"),
    [
        (metrics(accuracy=0.5999), "accuracy"),
        (metrics(macro_f1=0.4), "macro_f1"),
        (metrics(ece=0.051), "calibration_error"),
    ],
)
def test_each_limit_stops_a_model(candidate: dict[str, Any], failed: str) -> None:
    decision = check_gate(candidate, None, PARAMS)
    assert not decision.passed
    assert [check.name for check in decision.checks if not check.passed] == [failed]
    assert failed in decision.text
    with pytest.raises(GateError, match=failed):
        decision.require()


def test_limits_themselves_pass() -> None:
    assert check_gate(metrics(0.6, 0.5, 0.05), metrics(0.605), PARAMS).passed


@pytest.mark.parametrize(("accuracy", "passed"), [(0.70, True), (0.6951, True), (0.6949, False)])
def test_the_champion_must_be_held_against(accuracy: float, passed: bool) -> None:
    decision = check_gate(metrics(accuracy), metrics(0.70), PARAMS)
    assert decision.passed is passed
    check = decision.checks[-1]
    assert (check.name, check.limit) == ("accuracy_against_champion", pytest.approx(0.695))


def test_another_test_set_is_not_compared_in_silence() -> None:
    decision = check_gate(metrics(0.9, test_set="two"), metrics(0.65), PARAMS)
    assert not decision.passed
    assert "another test set" in decision.text
    assert "by hand" in decision.text


@pytest.mark.parametrize("value", [None, "0.7", math.nan, math.inf, True])
def test_a_figure_that_is_no_number_is_an_error(value: Any) -> None:
    candidate = metrics()
    candidate["test"]["accuracy"] = value
    with pytest.raises(GateError, match=r"test\.accuracy of the candidate"):
        check_gate(candidate, None, PARAMS)
    with pytest.raises(GateError, match=r"test\.accuracy of the champion"):
        check_gate(metrics(), candidate, PARAMS)


def test_metrics_without_figures_are_an_error() -> None:
    with pytest.raises(GateError, match="dvc repro evaluate"):
        check_gate({}, None, PARAMS)
