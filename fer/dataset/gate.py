"""The data gate: a source is judged by Great Expectations before anything is made of it.

`run_gate` measures the source table, runs a suite of `fer.dataset.expectations` on each frame
in a checkpoint, writes `validation.json` and Data Docs, and stops the workflow where a critical
expectation is breached.
"""

from __future__ import annotations

import contextlib
import html
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.dataset.data_docs import localize, write_index
from fer.dataset.expectations import Rule, column_rules, rules
from fer.dataset.frames import Frames, column_frame
from fer.dataset.table import read_source
from fer.errors import ValidationError
from fer.files import write_json
from fer.params import ValidateParams
from fer.progress import Progress

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

_EXAMPLES = 3
_SITE = "gate"


@dataclass(frozen=True)
class Result:
    """What became of one expectation."""

    key: str
    suite: str
    expectation: str
    severity: str
    words: str
    remedy: str
    passed: bool
    count: int
    """How many images, splits or classes stand against it; below a bound there may be some."""
    examples: tuple[str, ...]
    """Up to three of them, with what is wrong."""
    observed: float | int | None
    """The measured value, of expectations about a sum or a mean."""
    error: str | None = None
    """Why it could not be evaluated, if so."""

    @property
    def found(self) -> str:
        """What was found, in words: a count, and a share where that is what was measured."""
        if self.error:
            return f"not evaluated: {self.error}"
        noun = {"images": "image", "splits": "split", "classes": "class"}.get(self.suite, "column")
        plural = "es" if noun == "class" else "s"
        text = f"{self.count:,} {noun}{'' if self.count == 1 else plural}"
        return f"{text}, {self.observed:.2%}" if isinstance(self.observed, float) else text

    def sentence(self) -> str:
        """The breach, its count, up to three offenders, and what to do."""
        names = ", ".join(self.examples)
        more = ", ..." if self.count > len(self.examples) else ""
        listed = f": {names}{more}" if names else ""
        return f"Expected: {self.words}. Found {self.found}{listed}. {self.remedy}."


@dataclass(frozen=True)
class GateReport:
    """The verdict of the gate, as written to `validation.json`."""

    results: tuple[Result, ...]
    summary: dict[str, Any] = field(default_factory=dict)
    """Rows per split and class, duplicates, conflicts, blanks, twins, grey levels."""
    file: Path = Path("validation.json")
    docs: Path = Path("data_docs/index.html")
    """First page of the Data Docs."""

    @property
    def breaches(self) -> tuple[Result, ...]:
        """Critical expectations that failed; any of them stops the workflow."""
        return tuple(one for one in self.results if not one.passed and one.severity == "critical")

    @property
    def warnings(self) -> tuple[Result, ...]:
        """Expectations of lesser severity that failed: to know, not to stop for."""
        return tuple(one for one in self.results if not one.passed and one.severity != "critical")

    @property
    def passed(self) -> bool:
        """Whether no critical expectation failed."""
        return not self.breaches

    def document(self) -> dict[str, Any]:
        """The content of validation.json: the same for the same images and params."""
        return {
            "schema": "fer-validation/1",
            "passed": self.passed,
            **self.summary,
            "expectations": [
                {
                    "key": one.key,
                    "suite": one.suite,
                    "expectation": one.expectation,
                    "severity": one.severity,
                    "words": one.words,
                    "passed": one.passed,
                    "count": one.count,
                    "examples": list(one.examples),
                    "observed": one.observed,
                    "error": one.error,
                }
                for one in self.results
            ],
        }

    def message(self) -> str:
        """What a breach says to whoever started the workflow."""
        count = len(self.breaches)
        lines = [f"The data gate found {count} breach{'' if count == 1 else 'es'}."]
        lines += [f"  {number}. {one.sentence()}" for number, one in enumerate(self.breaches, 1)]
        lines.append(f"All results: {self.docs}")
        return "\n".join(lines)


def run_gate(images: Path, params: ValidateParams, out: Path) -> GateReport:
    """Judge a source table.

    Args:
        images: source table, `images.parquet`.
        params: section `validate`: the bounds.
        out: folder for `validation.json` and `data_docs/`, which are replaced whole.

    Returns:
        The report of a source that passed; warnings may be among its results.

    Raises:
        TableError: the table is absent or no source table.
        ValidationError: a critical expectation was breached. The report and the Data Docs are
            written all the same.
    """
    with Progress("Judging the source table") as progress:
        report = _judge(read_source(images), params, out, progress)
    if not report.passed:
        raise ValidationError(report.message())
    return report


def _judge(
    table: pyarrow.Table, params: ValidateParams, out: Path, progress: Progress
) -> GateReport:
    """Measure, judge, and write what came of it."""
    columns = column_frame(table)
    schema = column_rules(columns["definition"].tolist())
    frames: dict[str, pd.DataFrame] = {"columns": columns}
    judged: Sequence[Rule] = schema
    measured = None
    # Measuring, one step for each suite (up to 4), and the Data Docs.
    progress.update(0, 6)
    if not schema[0].offenders(_nothing()):
        measured = Frames.of(table, {str(split): n for split, n in params.min_rows.items()})
        frames |= {
            "images": measured.images,
            "splits": measured.splits,
            "classes": measured.classes,
        }
        judged = [*schema, *rules(params)]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".data_docs.", dir=out) as scratch:
        site = Path(scratch) / "site"
        with _quiet():
            outcome = _checkpoint(frames, judged, site, lambda done: progress.update(done, 6))
        report = GateReport(
            tuple(_result(rule, outcome[rule.key], measured or _nothing()) for rule in judged),
            measured.summary() if measured else {},
            out / "validation.json",
            out / "data_docs" / "index.html",
        )
        localize(site)
        write_index(site, report)
        _replace_folder(site, out / "data_docs", Path(scratch) / "old")
    write_json(report.file, report.document())
    progress.update(6, 6)
    return report


def _checkpoint(
    frames: Mapping[str, pd.DataFrame],
    judged: Sequence[Rule],
    site: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Run each frame's suite in a checkpoint, render Data Docs; results by the rules' keys."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
            data_docs_sites={
                _SITE: {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": {
                        "class_name": "TupleFilesystemStoreBackend",
                        "base_directory": str(site.resolve()),
                    },
                    "site_index_builder": {
                        "class_name": "DefaultSiteIndexBuilder",
                        "show_cta_footer": False,
                    },
                }
            },
        ),
    )
    source = context.data_sources.add_pandas("source")
    outcome: dict[str, Any] = {}
    definitions = []
    for name in frames:
        suite = gx.ExpectationSuite(
            name=name, expectations=[rule.build() for rule in judged if rule.suite == name]
        )
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
        definitions.append(context.validation_definitions.add(definition))
    # One checkpoint a frame: batch parameters, here the frame, are a checkpoint's, not a suite's.
    for done, (name, definition) in enumerate(zip(frames, definitions, strict=True), 1):
        advance(done)
        index = {"images": ["name"], "splits": ["split"], "classes": ["cell"]}.get(name, [])
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                result_format={
                    "result_format": "SUMMARY",
                    "partial_unexpected_count": 20,
                    **({"unexpected_index_column_names": index} if index else {}),
                },
            )
        )
        run = checkpoint.run(
            batch_parameters={"dataframe": _escaped(frames[name])},
            run_id=gx.RunIdentifier(run_name="gate"),
        )
        for suite_result in run.run_results.values():
            for one in suite_result.results:
                config: Any = one.expectation_config
                outcome[config.meta["key"]] = one
    advance(5)
    context.build_data_docs(site_names=[_SITE])
    return outcome


def _result(rule: Rule, outcome: Any, frames: Frames) -> Result:
    offenders = rule.offenders(frames)
    trouble = outcome.exception_info or {}
    error = trouble.get("exception_message") if trouble.get("raised_exception") else None
    observed = outcome.result.get("observed_value") if outcome.result else None
    value: float | int | None = None
    if rule.expectation == "ExpectColumnMeanToBeBetween" and observed is not None:
        value = round(float(observed), 6)
    elif rule.expectation == "ExpectColumnSumToBeBetween" and observed is not None:
        value = int(observed)
    return Result(
        key=rule.key,
        suite=rule.suite,
        expectation=rule.expectation,
        severity=rule.severity,
        words=rule.words,
        remedy=rule.remedy,
        passed=bool(outcome.success),
        count=len(offenders),
        examples=tuple(offenders[:_EXAMPLES]),
        observed=value,
        error=error,
    )


def _escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its text as HTML: Data Docs show values unescaped, and a source names them."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        if frame[name].dtype.kind in "OTU":  # text, whichever way pandas stores it
            frame[name] = frame[name].map(html.escape, na_action="ignore")
    return frame


def _nothing() -> Frames:
    """Frames without rows, for rules about the columns alone."""
    import pandas as pd

    return Frames(pd.DataFrame(), pd.DataFrame(), pd.DataFrame())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No telemetry, no chatter, and third parties' deprecations are not ours to fail by."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for origin in ("great_expectations", "marshmallow", "altair", "posthog", "pandas"):
                warnings.filterwarnings("ignore", module=rf"{origin}(\.|$)")
            yield
    finally:
        logger.setLevel(level)


def _replace_folder(new: Path, target: Path, old: Path) -> None:
    """Put `new` where `target` is; `target` moves to `old`, which the caller deletes."""
    if target.is_dir():
        target.rename(old)
    elif target.exists():
        target.unlink()
    shutil.move(new, target)
