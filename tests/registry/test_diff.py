"""How two packages differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.registry import PackageManifest, compare
from fer.registry.manifest import PackageFile

BEFORE: dict[str, Any] = {
    "metrics": {
        "test": {"accuracy": 0.61, "accuracy_low": 0.59, "macro_f1": 0.55},
        "test_set": "aa",
        "schema": "fer-metrics/1",
    },
    "lineage": {
        "git_commit": "1111",
        "git_changed": False,
        "dvc": {"data/prepared": "d1"},
        "params": {"seed": 1, "finetune": {"epochs": 12, "learning_rate": 0.001}},
        "versions": {"keras": "3.1"},
        "training": {"best_epoch": 9},
    },
}
AFTER: dict[str, Any] = {
    "metrics": {
        "test": {"accuracy": 0.64, "accuracy_low": 0.62, "macro_f1": 0.55},
        "test_set": "aa",
        "schema": "fer-metrics/1",
    },
    "lineage": {
        "git_commit": "2222",
        "git_changed": True,
        "dvc": {"data/prepared": "d1"},
        "params": {"seed": 1, "finetune": {"epochs": 20, "learning_rate": 0.001}, "dropout": 0.3},
        "versions": {"keras": "3.2"},
        "training": {"best_epoch": 17},
    },
}


def manifest(document: dict[str, Any], digest: str = "a") -> PackageManifest:
    file = PackageFile(size=1, sha256=digest * 64)
    return PackageManifest(name="faces", files={"model.onnx": file}, **document)


def test_each_section_names_what_differs() -> None:
    found = compare(manifest(BEFORE), manifest(AFTER, "b"))
    assert found.to_dict() == {
        "metrics": {"test.accuracy": {"before": 0.61, "after": 0.64, "delta": 0.03}},
        "params": {
            "params.finetune.epochs": {"before": 12, "after": 20, "delta": 8.0},
            "params.dropout": {"before": None, "after": 0.3},
        },
        "data": {},
        "code": {
            "git_commit": {"before": "1111", "after": "2222"},
            "git_changed": {"before": False, "after": True},
            "versions.keras": {"before": "3.1", "after": "3.2"},
        },
        "training": {"training.best_epoch": {"before": 9, "after": 17, "delta": 8.0}},
        "files": {"model.onnx": {"before": "a" * 64, "after": "b" * 64}},
        "same_data": True,
    }


@pytest.mark.parametrize("section", ["metrics", "lineage"])
def test_other_data_are_said(section: str) -> None:
    changed = dict(AFTER)
    changed["metrics"] = AFTER["metrics"] | {"test_set": "bb" if section == "metrics" else "aa"}
    if section == "lineage":
        changed["lineage"] = AFTER["lineage"] | {"dvc": {"data/prepared": "d2"}}
    found = compare(manifest(BEFORE), manifest(changed))
    assert not found.same_data
    assert list(found.data) == (["test_set"] if section == "metrics" else ["dvc.data/prepared"])


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
trees = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.recursive(leaves, lambda inner: st.dictionaries(st.text("ab", max_size=1), inner)),
    max_size=4,
)


@given(trees, trees)
def test_equal_packages_do_not_differ_and_both_ways_agree(one: Any, other: Any) -> None:
    first = manifest({"metrics": one, "lineage": other})
    second = manifest({"metrics": other, "lineage": one})
    same = compare(first, first).to_dict()
    assert same.pop("same_data") is True
    assert not any(same.values())
    forth, back = compare(first, second), compare(second, first)
    for section in ("metrics", "params", "data", "code", "training"):
        ahead, behind = getattr(forth, section), getattr(back, section)
        assert {k: (c.before, c.after) for k, c in ahead.items()} == {
            k: (c.after, c.before) for k, c in behind.items()
        }
