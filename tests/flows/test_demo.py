"""The demo's parameters; tests/e2e runs it whole."""

from __future__ import annotations

from pathlib import Path

import yaml

from fer.params import merged, parse_params
from flows.demo import DEMO_PARAMS


def test_the_demo_is_small_whatever_profile_the_checkout_has_chosen(checkout: Path) -> None:
    document = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    params = parse_params(merged(document | {"profile": "gpu"}, DEMO_PARAMS))
    assert params.train.input_size == 48
    assert params.train.epochs < 10
    assert params.train.precision == "float32"
