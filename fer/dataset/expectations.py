"""What the data gate expects of a source, as Great Expectations suites with words for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fer.dataset.frames import COLUMNS, REQUIRED_SPLITS, Frames
from fer.dataset.table import SIDE, SPLITS
from fer.expressions import EXPRESSIONS
from fer.params import ValidateParams

if TYPE_CHECKING:
    import pandas as pd

Suite = Literal["columns", "images", "splits", "classes"]
FIX_SOURCE = "Fix the source"


@dataclass(frozen=True)
class Rule:
    """One expectation, and how to speak of its breach."""

    key: str
    """Stable name in validation.json."""
    suite: Suite
    expectation: str
    """Class of `great_expectations.expectations`."""
    kwargs: dict[str, Any]
    words: str
    """The expectation in words."""
    remedy: str
    """What to do about a breach."""
    offenders: Callable[[Frames], list[str]]
    """What breaches it: names of images, splits or classes, with what is wrong with them."""
    severity: Literal["critical", "warning"] = "critical"

    def build(self) -> Any:
        """The Great Expectations object. Its description is what Data Docs show."""
        import great_expectations.expectations as gxe

        return getattr(gxe, self.expectation)(
            **self.kwargs,
            severity=self.severity,
            description=f"{self.words[0].upper()}{self.words[1:]}.",
            meta={"key": self.key},
        )


def column_rules(definitions: list[str]) -> list[Rule]:
    """The schema, checked first: nothing else can be measured without it."""
    missing = [f"{one} is missing" for one in COLUMNS if one not in definitions]
    return [
        Rule(
            "schema",
            "columns",
            "ExpectColumnDistinctValuesToContainSet",
            {"column": "definition", "value_set": list(COLUMNS)},
            "the table has the columns and types of a source table",
            "Run `fer data fetch` again with this version",
            lambda _: missing,
        )
    ]


def rules(params: ValidateParams) -> list[Rule]:
    """All expectations of the frames, the most basic first."""
    return [*_image_rules(), *_split_rules(params), *_class_rules(params), *_copy_rules(params)]


def _image_rules() -> list[Rule]:
    def of_images(
        key: str,
        expectation: str,
        kwargs: dict[str, Any],
        words: str,
        remedy: str,
        bad: Callable[[pd.DataFrame], Any],
        detail: str = "",
    ) -> Rule:
        return Rule(key, "images", expectation, kwargs, words, remedy, _images(bad, detail))

    value_set, between = "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeBetween"
    pair = "ExpectColumnPairValuesToBeEqual"
    either, both = "either_value_is_missing", "both_values_are_missing"
    size = f"{FIX_SOURCE}: FER2013 is {SIDE} x {SIDE} px grey"
    return [
        of_images("readable", "ExpectColumnValuesToBeNull", {"column": "problem"},
                  "every image can be read", f"{FIX_SOURCE}: restore or remove these files",
                  lambda f: f["problem"].notna(), "problem"),
        of_images("named", "ExpectColumnValuesToNotBeNull", {"column": "name"},
                  "every image has a name", FIX_SOURCE, lambda f: f["name"].isna()),
        of_images("names_unique", "ExpectColumnValuesToBeUnique", {"column": "name"},
                  "image names are unique", f"{FIX_SOURCE}: rename one of each",
                  lambda f: f["name"].notna() & f.duplicated("name", keep=False)),
        of_images("splits_known", value_set, {"column": "split", "value_set": list(SPLITS)},
                  "every image belongs to train, validation or test",
                  f"{FIX_SOURCE}: name its folders train and test",
                  lambda f: ~f["split"].isin(SPLITS), "split"),
        of_images("labels_known", value_set, {"column": "label", "value_set": list(EXPRESSIONS)},
                  "every label is one of the seven expressions",
                  f"{FIX_SOURCE}: the classes are {', '.join(EXPRESSIONS)} (0 to 6 in a CSV)",
                  lambda f: ~f["label"].isin(EXPRESSIONS), "label"),
        of_images("width", value_set, {"column": "width", "value_set": [SIDE]},
                  f"every image is {SIDE} pixels wide", size,
                  lambda f: f["width"].notna() & (f["width"] != SIDE), "width"),
        of_images("height", value_set, {"column": "height", "value_set": [SIDE]},
                  f"every image is {SIDE} pixels high", size,
                  lambda f: f["height"].notna() & (f["height"] != SIDE), "height"),
        of_images("grey", value_set, {"column": "mode", "value_set": ["L"]},
                  "every image is grey (mode L)", size,
                  lambda f: f["mode"].notna() & (f["mode"] != "L"), "mode"),
        of_images("one_byte_per_pixel", pair,
                  {"column_A": "bytes", "column_B": "area", "ignore_row_if": either},
                  "every image has one byte per pixel", "Run `fer data fetch` again",
                  lambda f: f[["bytes", "area"]].notna().all(axis=1) & (f["bytes"] != f["area"]),
                  "bytes"),
        of_images("digest", pair,
                  {"column_A": "sha256", "column_B": "digest", "ignore_row_if": both},
                  "every sha256 is that of the image's pixels", "Run `fer data fetch` again",
                  lambda f: f["sha256"].fillna("") != f["digest"].fillna("")),
        of_images("darkest", between, {"column": "darkest", "min_value": 0, "max_value": 255},
                  "grey levels are 0 or more", FIX_SOURCE, lambda f: f["darkest"] < 0),
        of_images("brightest", between, {"column": "brightest", "min_value": 0, "max_value": 255},
                  "grey levels are 255 or less", FIX_SOURCE, lambda f: f["brightest"] > 255),
    ]  # fmt: skip


def _copy_rules(params: ValidateParams) -> list[Rule]:
    blanks, share, conflicting = (
        params.max_blanks,
        params.max_duplicate_share,
        params.max_conflicting,
    )
    return [
        Rule("blanks", "images", "ExpectColumnSumToBeBetween",
             {"column": "blank", "max_value": blanks},
             f"at most {blanks} images are blank",
             f"{FIX_SOURCE}, or raise validate.max_blanks in params.yaml",
             _images(lambda f: f["blank"])),
        Rule("duplicates", "images", "ExpectColumnMeanToBeBetween",
             {"column": "redundant", "max_value": share},
             f"at most {share:.1%} of the images are redundant exact copies",
             f"{FIX_SOURCE}, or raise validate.max_duplicate_share in params.yaml",
             _images(lambda f: f["redundant"])),
        Rule("conflicting", "images", "ExpectColumnSumToBeBetween",
             {"column": "conflicting", "max_value": conflicting},
             f"at most {conflicting} images have an exact copy under another label",
             f"{FIX_SOURCE}, or raise validate.max_conflicting in params.yaml",
             _images(lambda f: f["conflicting"], "label")),
        Rule("twins", "images", "ExpectColumnSumToBeBetween", {"column": "twin", "max_value": 0},
             "no validation or test image is an exact copy of a training image",
             "Keep prepare.drop_twins on: it leaves their copies out of training",
             _images(lambda f: f["twin"]), "warning"),
    ]  # fmt: skip


def _split_rules(params: ValidateParams) -> list[Rule]:
    def of_splits(bad: Callable[[pd.DataFrame], Any], column: str) -> Callable[[Frames], list[str]]:
        def offenders(frames: Frames) -> list[str]:
            part = frames.splits[bad(frames.splits)]
            pairs = zip(part["split"], part[column], strict=True)
            return [f"{split}: {value:,}" for split, value in pairs]

        return offenders

    between = "ExpectColumnValuesToBeBetween"
    (low, high), (flat, wild) = params.mean_grey, params.grey_spread
    return [
        Rule("splits_present", "splits", between, {"column": "rows", "min_value": 1},
             f"the splits {' and '.join(REQUIRED_SPLITS)} hold images",
             f"{FIX_SOURCE}: the split is empty or absent",
             of_splits(lambda f: f["rows"] < 1, "rows")),
        Rule("min_rows", "splits", "ExpectColumnPairValuesAToBeGreaterThanB",
             {"column_A": "rows", "column_B": "min_rows", "or_equal": True},
             "every split holds as many images as validate.min_rows asks",
             f"{FIX_SOURCE}: it is incomplete; or lower validate.min_rows in params.yaml",
             of_splits(lambda f: f["rows"] < f["min_rows"], "rows")),
        Rule("mean_grey", "splits", between,
             {"column": "mean_grey", "min_value": low, "max_value": high},
             f"the mean grey level of each split lies within {low:g} to {high:g}",
             f"{FIX_SOURCE}: its light is not FER2013's; or widen validate.mean_grey in "
             "params.yaml",
             of_splits(lambda f: (f["mean_grey"] < low) | (f["mean_grey"] > high),
                       "mean_grey")),
        Rule("grey_spread", "splits", between,
             {"column": "grey_spread", "min_value": flat, "max_value": wild},
             f"the standard deviation of each split's grey levels lies within {flat:g} to {wild:g}",
             f"{FIX_SOURCE}: its contrast is not FER2013's; or widen validate.grey_spread in "
             "params.yaml",
             of_splits(lambda f: (f["grey_spread"] < flat) | (f["grey_spread"] > wild),
                       "grey_spread")),
    ]  # fmt: skip


def _class_rules(params: ValidateParams) -> list[Rule]:
    def of_classes(bad: Callable[[pd.DataFrame], Any]) -> Callable[[Frames], list[str]]:
        def offenders(frames: Frames) -> list[str]:
            part = frames.classes[bad(frames.classes)]
            triples = zip(part["cell"], part["rows"], part["share"], strict=True)
            return [f"{cell}: {rows:,} ({share:.1%})" for cell, rows, share in triples]

        return offenders

    low, high = params.class_share
    return [
        Rule("classes_present", "classes", "ExpectColumnValuesToBeBetween",
             {"column": "rows", "min_value": 1},
             "every split holds all seven expressions",
             f"{FIX_SOURCE}: restore the folders that are missing or empty",
             of_classes(lambda f: f["rows"] < 1)),
        Rule("class_share", "classes", "ExpectColumnValuesToBeBetween",
             {"column": "share", "min_value": low, "max_value": high},
             f"each expression is {low:.1%} to {high:.1%} of its split",
             f"{FIX_SOURCE}, or widen validate.class_share in params.yaml",
             of_classes(lambda f: (f["share"] < low) | (f["share"] > high))),
    ]  # fmt: skip


_Offenders = Callable[[Frames], list[str]]


def _images(bad: Callable[[pd.DataFrame], Any], detail: str = "") -> _Offenders:
    """Names of the images that `bad` marks, with their value in the column `detail`."""

    def offenders(frames: Frames) -> list[str]:
        part = frames.images[bad(frames.images).fillna(False).astype(bool)]
        if not detail:
            return [str(name) for name in part["name"]]
        return [f"{n} ({value})" for n, value in zip(part["name"], part[detail], strict=True)]

    return offenders
