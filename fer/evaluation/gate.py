"""The quality gate: what a model must reach before it becomes champion.

`check_gate` decides on figures. `fer.evaluation.gate_data` measures them, challenger and champion
on the same images, and adds what only that can tell: which of the two is right where they differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
    """Whether a model may become champion, and why.

    Attributes:
        figures: what was measured, as JSON; empty where recorded figures were compared.
        unchecked: limits of params.yaml that the figures at hand cannot be held against.
    """

    passed: bool
    checks: list[GateCheck]
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)

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
        metrics: the candidate's metrics.json; besides, where they were measured, `recall` (by
            expression), `latency_ms`, and `mcnemar` against the champion.
        champion: the present champion's, or None where there is none: the comparisons with it
            are then left out.
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
    unchecked = []
    floors = {name: least for name, least in params.min_recall if least > 0}
    if "recall" in metrics:
        checks += [
            _at_least(f"recall_{name}", metrics["recall"][name], least)
            for name, least in floors.items()
        ]
    elif floors:
        unchecked.append("min_recall")
    if "latency_ms" in metrics:
        checks.append(_at_most("latency_ms", metrics["latency_ms"], params.max_latency_ms))
    else:
        unchecked.append("max_latency_ms")
    if champion is not None:
        checks.append(_against(metrics, accuracy, champion, params.max_accuracy_drop))
        if "mcnemar" in metrics:
            checks.append(_not_worse(metrics["mcnemar"], params.significance))
        else:
            unchecked.append("significance")
    failed = [check for check in checks if not check.passed]
    if failed:
        text = "The gate is not passed: " + "; ".join(check.text for check in failed) + "."
        text += " The version stays registered; the champion does not change."
    else:
        text = "The gate is passed: " + "; ".join(check.text for check in checks) + "."
    if unchecked:
        text += f" Not checked, for want of the test images: {', '.join(unchecked)}."
    return GateDecision(passed=not failed, checks=checks, text=text, unchecked=unchecked)


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


def _not_worse(found: Mapping[str, Any], significance: float) -> GateCheck:
    """McNemar: fails where the champion is right more often than chance alone would have it."""
    ours, theirs, p = found["only_challenger_right"], found["only_champion_right"], found["p_value"]
    passed = not (theirs > ours and p < significance)
    verdict = "is not significantly worse" if passed else "is significantly worse"
    text = (
        f"the challenger {verdict} (of {ours + theirs} images that one alone gets right, it gets "
        f"{ours}; McNemar p {p:.3g})"
    )
    return GateCheck("mcnemar", p, significance, passed, text)


def _figure(metrics: Mapping[str, Any], name: str, whose: str) -> float:
    section = metrics.get("test")
    value = section.get(name) if isinstance(section, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise GateError(
            f"test.{name} of {whose}'s metrics is {value!r}, not a number. "
            "Evaluate the model again: `dvc repro evaluate`."
        )
    return float(value)
