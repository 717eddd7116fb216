"""How much accuracy is left when pictures are worse than the test set's, or crops elsewhere.

Each corruption is measured on the same test images as the untouched ones, so that a difference is
that of pairs and its interval is narrow. It says nothing of light, poses, cameras and people that
FER2013 does not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.corruptions import CORRUPTIONS
from fer.evaluation.figures import compared, share
from fer.evaluation.views import Logits

_SCHEMA: Final = "fer-robustness/1"


def sample(table: FaceTable, images: int, seed: int) -> NDArray[np.int64]:
    """Places of `images` rows, or of all where there are fewer, in ascending order.

    Every expression, and within it near copies of training images and others, has its share of
    them, to within one image.
    """
    n = len(table)
    drawn = np.random.default_rng(seed).random(n)
    strata = np.lexsort((drawn, table.near_twin, table.expression))
    count = min(images, n)
    return np.sort(strata[np.arange(count) * n // max(count, 1)])


def measure_robustness(
    table: FaceTable, logits: NDArray[np.float32], run: Logits, level: float, seed: int
) -> dict[str, Any]:
    """The content of robustness.json.

    Args:
        table: the test images to measure on (`sample`).
        logits: (n, 7) of them, untouched.
        run: gives the logits of crops.
        level: of the intervals.
        seed: of what is random in a corruption.

    Returns:
        `untouched`, and in `conditions` one mapping per corruption: `kind`, `level`, and for
        `test` (all of `table`) and `clean` (without near copies of training images) `n`,
        `accuracy` and its `difference` from the untouched, with bounds.
    """
    actual = table.expression.astype(np.int64)
    before = logits.argmax(axis=1) == actual
    subsets = {"test": np.ones(len(table), bool), "clean": ~table.near_twin}
    conditions = []
    for corruption in CORRUPTIONS:
        right = run(corruption.apply(table.pixels, seed)).argmax(axis=1) == actual
        conditions.append(
            {"kind": corruption.kind, "level": corruption.level}
            | {
                name: compared("accuracy", right[rows], before[rows], level)
                for name, rows in subsets.items()
            }
        )
    return {
        "schema": _SCHEMA,
        "confidence": level,
        "seed": seed,
        "untouched": {
            name: share("accuracy", before[rows], level) for name, rows in subsets.items()
        },
        "conditions": conditions,
    }


def read_robustness(path: Path) -> dict[str, Any]:
    """The content of a robustness.json: what the model card takes.

    Raises:
        TableError: absent, or no such file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document.get("schema") if isinstance(document, Mapping) else None
        if found != _SCHEMA:
            raise ValueError(f"its schema is {found}, not {_SCHEMA}")
        return dict(document)
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read ({error}). Run `dvc repro evaluate`.") from None
