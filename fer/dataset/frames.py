"""The source table as the small frames that the data gate judges.

Four pandas frames: the columns of the table, one row per image, one per split, and one per
split and class. Pixels stay in the table; the frames hold what was measured on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import SPLITS
from fer.expressions import EXPRESSIONS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

COLUMNS: Final = (
    "name: string",
    "split: string",
    "label: string",
    "width: int32",
    "height: int32",
    "mode: string",
    "pixels: binary",
    "sha256: string",
    "problem: string",
)
"""Columns and types of a source table."""

REQUIRED_SPLITS: Final = ("train", "test")
"""Splits without which there is nothing to train or to report on."""

BLANK_SPREAD: Final = 2.0
"""An image whose grey levels deviate less than this shows nothing."""

_NULLABLE: Final = {"width", "height", "mode", "pixels", "sha256", "problem"}
_BLOCK: Final = 4096


@dataclass(frozen=True)
class Frames:
    """What the gate judges; see `image_frame`, `split_frame` and `class_frame` for columns."""

    images: pd.DataFrame
    splits: pd.DataFrame
    classes: pd.DataFrame

    @classmethod
    def of(cls, table: pyarrow.Table, min_rows: dict[str, int]) -> Frames:
        """Measure a source table that has the columns of `COLUMNS`."""
        images, sums = image_frame(table)
        return cls(images, split_frame(images, sums, min_rows), class_frame(images))

    def summary(self) -> dict[str, Any]:
        """Counts for the report: rows, duplicates, conflicts, blanks, twins, grey levels."""
        images, splits = self.images, self.splits
        rows: dict[str, Any] = {"total": len(images)}
        for split, part in images.groupby("split", sort=True):
            rows[str(split)] = {
                "total": len(part),
                **{str(k): int(v) for k, v in part["label"].value_counts().sort_index().items()},
            }
        conflicting = images[images["conflicting"]]
        return {
            "rows": rows,
            "unreadable": int(images["problem"].notna().sum()),
            "blanks": {
                "all_black": int((images["brightest"] == 0).sum()),
                "total": int(images["blank"].sum()),
            },
            "duplicates": {
                "redundant": int(images["redundant"].sum()),
                "groups": int(images.loc[images["copies"] > 1, "digest"].nunique()),
                "share": round(float(images["redundant"].mean()), 6),
            },
            "conflicting": {
                "images": len(conflicting),
                "groups": int(conflicting["digest"].nunique()),
            },
            "twins": {
                split: int(images.loc[images["split"] == split, "twin"].sum())
                for split in ("validation", "test")
            },
            "grey": {
                str(row["split"]): {"mean": row["mean_grey"], "spread": row["grey_spread"]}
                for row in splits.to_dict("records")
                if row["rows"] and row["mean_grey"] == row["mean_grey"]
            },
        }


def column_frame(table: pyarrow.Table) -> pd.DataFrame:
    """One row per column of the table: `definition`, as `name: type`."""
    import pandas as pd

    definitions = []
    for field in table.schema:
        kind = str(field.type).removeprefix("large_")
        # A column without a single value (nothing unreadable, say) may have no type.
        if kind == "null" and field.name in _NULLABLE:
            kind = next(one for one in COLUMNS if one.startswith(f"{field.name}:")).split(": ")[1]
        definitions.append(f"{field.name}: {kind}")
    return pd.DataFrame({"definition": definitions})


def image_frame(table: pyarrow.Table) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Measure every image.

    Returns:
        The frame, and for each image the sum and the sum of squares of its grey levels (n, 2).

    The frame has name, split, label, width, height, mode, problem and sha256 of the table, and
    area (width x height), bytes (of pixels), digest (of pixels), darkest, brightest, mean_grey,
    grey_spread, blank, copies (images with these pixels, itself included), redundant (a copy of
    an image further up), conflicting (a copy has another label), twin (a validation or test
    image with these pixels in train). Measures of an unreadable image are null, its flags false.
    """
    import pandas as pd

    frame = pd.DataFrame(
        {
            name: pd.Series(table[name].to_pylist(), dtype="object")
            for name in ("name", "split", "label", "mode", "problem", "sha256")
        }
    )
    for name in ("width", "height"):
        frame[name] = pd.array(table[name].to_pylist(), dtype="Int64")
    frame["area"] = frame["width"] * frame["height"]
    contents: list[bytes | None] = table["pixels"].to_pylist()
    frame["bytes"] = pd.array([None if one is None else len(one) for one in contents], "Int64")
    frame["digest"] = pd.Series(
        [None if one is None else hashlib.sha256(one).hexdigest() for one in contents],
        dtype="object",
    )
    measures = _measure(contents)
    count = np.array([len(one) if one else 0 for one in contents], np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = measures[:, 2] / count
        spread = np.sqrt(np.maximum(measures[:, 3] / count - mean**2, 0))
    for name, column in (("darkest", measures[:, 0]), ("brightest", measures[:, 1])):
        levels = [None if np.isnan(one) else int(one) for one in column]
        frame[name] = pd.array(levels, dtype="Int64")
    frame["mean_grey"], frame["grey_spread"] = mean, spread
    frame["blank"] = spread < BLANK_SPREAD
    known = frame["digest"].notna()
    groups = frame[known].groupby("digest")
    frame["copies"] = groups["name"].transform("size").reindex(frame.index, fill_value=0)
    frame["redundant"] = known & frame.duplicated("digest")
    labels = groups["label"].transform("nunique").reindex(frame.index, fill_value=0)
    frame["conflicting"] = labels > 1
    train = frame.loc[known & (frame["split"] == "train"), "digest"]
    frame["twin"] = (
        frame["split"].isin(["validation", "test"]) & known & frame["digest"].isin(train)
    )
    return frame, np.column_stack([measures[:, 2:], count])


def split_frame(
    images: pd.DataFrame, sums: NDArray[np.float64], min_rows: dict[str, int]
) -> pd.DataFrame:
    """One row per split found or required: rows, min_rows, mean_grey, grey_spread of its pixels."""
    import pandas as pd

    found = {str(split) for split in images["split"].dropna()}
    wanted = {split for split, least in min_rows.items() if least > 0} | set(REQUIRED_SPLITS)
    names = [*(one for one in SPLITS if one in found | wanted), *sorted(found - set(SPLITS))]
    rows = []
    for name in names:
        chosen = (images["split"] == name).to_numpy()
        total, squares, count = np.nansum(sums[chosen], axis=0) if chosen.any() else (0.0, 0.0, 0.0)
        mean = total / count if count else np.nan
        spread = float(np.sqrt(max(squares / count - mean**2, 0))) if count else np.nan
        rows.append(
            {
                "split": name,
                "rows": int(chosen.sum()),
                "min_rows": int(min_rows.get(name, 0)),
                "mean_grey": round(float(mean), 4),
                "grey_spread": round(spread, 4),
            }
        )
    return pd.DataFrame(rows)


def class_frame(images: pd.DataFrame) -> pd.DataFrame:
    """One row per known split that has images, and expression: cell, rows, share of the split."""
    import pandas as pd

    rows = []
    for split in SPLITS:
        labels = images.loc[images["split"] == split, "label"]
        for label in EXPRESSIONS if len(labels) else ():
            count = int((labels == label).sum())
            rows.append(
                {
                    "cell": f"{split}/{label}",
                    "split": split,
                    "label": label,
                    "rows": count,
                    "share": round(count / len(labels), 6),
                }
            )
    return pd.DataFrame(rows, columns=["cell", "split", "label", "rows", "share"])


def _measure(contents: Sequence[bytes | None]) -> NDArray[np.float64]:
    """Darkest, brightest, sum, sum of squares of each image's bytes; NaN where there are none."""
    result = np.full((len(contents), 4), np.nan)
    sizes: dict[int, list[int]] = {}
    for index, one in enumerate(contents):
        if one:
            sizes.setdefault(len(one), []).append(index)
    for size, indices in sizes.items():
        # In blocks: the squares of a whole FER2013 would take 600 MB.
        for start in range(0, len(indices), _BLOCK):
            block = indices[start : start + _BLOCK]
            joined = b"".join(contents[index] or b"" for index in block)
            levels = np.frombuffer(joined, np.uint8).reshape(-1, size)
            wide = levels.astype(np.float64)
            result[block, 0], result[block, 1] = levels.min(1), levels.max(1)
            result[block, 2] = wide.sum(1)
            result[block, 3] = np.einsum("ij,ij->i", wide, wide)
    return result
