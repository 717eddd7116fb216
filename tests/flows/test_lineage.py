"""What the tags of a run say of the model that it used."""

from __future__ import annotations

from flows.lineage import made_from, model_tags

LINEAGE = {
    "git_commit": "0123456789abcdef",
    "git_changed": True,
    "dvc": {"data/prepared": "f" * 36},
}


def test_a_package_tells_of_its_commit_and_its_data() -> None:
    assert made_from(LINEAGE) == {"commit": "0123456789ab-dirty", "data": "f" * 36}
    assert model_tags("any:7", LINEAGE) == [
        "model:any:7",
        "model-commit:0123456789ab-dirty",
        f"data/prepared:{'f' * 12}",
    ]


def test_a_package_that_tells_nothing() -> None:
    assert made_from({}) == {"commit": "no-commit"}
    assert model_tags("any:7", {}) == ["model:any:7"]
    assert model_tags("any:7", {"dvc": None}) == ["model:any:7", "model-commit:no-commit"]
