"""The quality gate: what a model must reach before it becomes champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fer.errors import GateError
from fer.params import GateParams


@dataclass(frozen=True)
class GateCheck:
    """One comparison of the gate; `limit` is the least or the most that passes."""

    name: str
    value: float
    limit: float
    passed: bool
    text: str


@dataclass(frozen=True)
class GateDecision:
    """Whether a model may become champion, and why."""

    passed: bool
    checks: list[GateCheck]
    text: str

    def document(self) -> dict[str, Any]:
        """The decision as JSON has it: for registry events and `--json`."""
        return asdict(self)

    def require(self) -> None:
        """Raise a `GateError` with every failed check unless the gate was passed."""
        if not self.passed:
            raise GateError(self.text)


def check_gate(
    metrics: Mapping[str, Any], champion: Mapping[str, Any] | None, params: GateParams
) -> GateDecision:
    """Compare a model's metrics with the gate of params.yaml and with the present champion.

    Args:
        metrics: the candidate's metrics.json.
        champion: the present champion's, or None where there is none: the last check is then
            left out.
        params: section `gate` of params.yaml.

    Raises:
        GateError: a figure the gate needs is absent or not a number.
    """
    accuracy = _figure(metrics, "accuracy", "the candidate")
    checks = [
        _at_least("accuracy", accuracy, params.min_accuracy),
        _at_least("macro_f1", _figure(metrics, "macro_f1", "the candidate"), params.min_macro_f1),
        _at_most(
            "calibration_error",
            _figure(metrics, "ece", "the candidate"),
            params.max_calibration_error,
        ),
    ]
    if champion is not None:
        checks.append(_against(metrics, accuracy, champion, params.max_accuracy_drop))
    failed = [check for check in checks if not check.passed]
    if failed:
        text = "The gate is not passed: " + "; ".join(check.text for check in failed) + "."
        text += " The version stays registered; the champion does not change."
    else:
        text = "The gate is passed: " + "; ".join(check.text for check in checks) + "."
    return GateDecision(passed=not failed, checks=checks, text=text)


def _at_least(name: str, value: float, limit: float) -> GateCheck:
    passed = value >= limit
    sign = "reaches" if passed else "is below"
    return GateCheck(name, value, limit, passed, f"{name} {value:.4f} {sign} {limit:g}")


def _at_most(name: str, value: float, limit: float) -> GateCheck:
    passed = value <= limit
    sign = "is within" if passed else "is above"
    return GateCheck(name, value, limit, passed, f"{name} {value:.4f} {sign} {limit:g}")


def _against(
    metrics: Mapping[str, Any], accuracy: float, champion: Mapping[str, Any], drop: float
) -> GateCheck:
    theirs = _figure(champion, "accuracy", "the champion")
    limit = theirs - drop
    ours_on, theirs_on = metrics.get("test_set"), champion.get("test_set")
    if ours_on and theirs_on and ours_on != theirs_on:
        # Two figures from two test sets cannot be compared; a person has to decide.
        text = (
            f"the champion was measured on another test set ({theirs_on}, this one {ours_on}), "
            "so the two do not compare; promote by hand if that is meant"
        )
        return GateCheck("accuracy_against_champion", accuracy, limit, False, text)
    # The last digit of a rounded figure must not decide.
    passed = accuracy >= limit - 1e-9
    sign = "holds against" if passed else "is too far below"
    text = f"accuracy {accuracy:.4f} {sign} the champion's {theirs:.4f} (may fall by {drop:g})"
    return GateCheck("accuracy_against_champion", accuracy, limit, passed, text)


def _figure(metrics: Mapping[str, Any], name: str, whose: str) -> float:
    section = metrics.get("test")
    value = section.get(name) if isinstance(section, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise GateError(
            f"test.{name} of {whose}'s metrics is {value!r}, not a number. "
            "Evaluate the model again: `dvc repro evaluate`."
        )
    return float(value)
