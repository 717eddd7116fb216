"""Two profiles side by side, line by line, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fer.expressions import EXPRESSIONS
from fer.monitoring.profile import VALUES, Profile
from fer.monitoring.statistics import (
    gap_probability,
    largest_gap,
    share_effect,
    share_probability,
    shares_probability,
    stability_index,
)
from fer.params import MonitoringParams

STEADY: Final = "steady"
DRIFT: Final = "drift"
TOO_FEW: Final = "too few to tell"
PSI, H, KS = "PSI", "Cohen's h", "KS"


@dataclass(frozen=True)
class Line:
    """One watched thing.

    Attributes:
        name: of the thing, such as `expressions`, `share of happy` or `confidence`.
        meaning: what it is.
        kind: expressions, share or value.
        baseline: share, or mean (median where no mean is known); None for `expressions`.
        now: the same of the window looked at.
        count_baseline: faces or pictures that it was measured on.
        count_now: the same of the window looked at.
        statistic: PSI, Cohen's h or KS.
        effect: its value; None where there is too little to tell.
        threshold: that the effect must reach to be drift.
        probability: of such an effect where nothing changed.
        verdict: steady, drift, or too few to tell.
    """

    name: str
    meaning: str
    kind: str
    baseline: float | None
    now: float | None
    count_baseline: int
    count_now: int
    statistic: str
    effect: float | None
    threshold: float
    probability: float | None
    verdict: str

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Comparison:
    """A window of results beside its baseline.

    Attributes:
        baseline: what was usual.
        now: what is looked at.
        lines: one per watched thing that the baseline knows of.
        min_faces: below which nothing is told.
        significance: of all lines together.
    """

    baseline: Profile
    now: Profile
    lines: tuple[Line, ...]
    min_faces: int
    significance: float

    @property
    def drifted(self) -> tuple[Line, ...]:
        """The lines that drifted, by how far they are beyond their thresholds."""
        found = [line for line in self.lines if line.verdict == DRIFT]
        return tuple(sorted(found, key=lambda line: -(line.effect or 0.0) / line.threshold))

    @property
    def verdict(self) -> str:
        """Drift where a line drifted; else too few to tell where a line is; else steady."""
        if self.drifted:
            return DRIFT
        return TOO_FEW if any(line.verdict == TOO_FEW for line in self.lines) else STEADY

    @property
    def text(self) -> str:
        """The verdict in a sentence or two."""
        if self.verdict == DRIFT:
            found = "; ".join(sentence(line) for line in self.drifted[:3])
            rest = len(self.drifted) - 3
            return f"Drift: {found}" + (f"; and {rest} more." if rest > 0 else ".")
        if self.verdict == TOO_FEW:
            return (
                f"Too few to tell: {self.now.faces:,} faces beside {self.baseline.faces:,} of the "
                f"baseline; at least {self.min_faces:,} are wanted of each, and of pictures."
            )
        return (
            f"Steady: {self.now.faces:,} faces beside {self.baseline.faces:,} of the baseline, "
            f"{len(self.lines)} things watched, none beyond its threshold."
        )


def sentence(line: Line) -> str:
    """'share of happy 24.0 % -> 41.0 % (Cohen's h 0.37, threshold 0.2)'."""
    figures = f"{line.statistic} {line.effect or 0:.2f}, threshold {line.threshold:g}"
    if line.kind == "expressions":
        return f"{line.name} ({figures})"
    return f"{line.name} {shown(line, line.baseline)} -> {shown(line, line.now)} ({figures})"


def shown(line: Line, value: float | None) -> str:
    """A line's baseline or present value as text."""
    if value is None:
        return "-"
    return f"{value:.1%}".replace("%", " %") if line.kind == "share" else f"{value:.4g}"


def compare(baseline: Profile, now: Profile, params: MonitoringParams) -> Comparison:
    """Hold a window against its baseline.

    A line has drifted where its effect reaches the threshold and chance would reach that effect
    with a probability below `significance` divided by the number of lines (Bonferroni). A line
    with fewer than `min_faces` faces, or pictures where it is of pictures, on either side is too
    few to tell. What the baseline does not know of has no line.

    Args:
        baseline: what was usual.
        now: what is looked at.
        params: section `monitoring` of params.yaml.
    """
    judge = _Judge(baseline, now, params)
    lines = [judge.expressions(), *(judge.expression(name) for name in EXPRESSIONS)]
    lines += [judge.value(name) for name in judge.values]
    if baseline.pictures is not None and now.pictures is not None:
        lines += judge.pictures()
    return Comparison(baseline, now, tuple(lines), params.min_faces, params.significance)


class _Judge:
    def __init__(self, baseline: Profile, now: Profile, params: MonitoringParams) -> None:
        self.baseline, self.now, self.params = baseline, now, params
        # A detector's score is null throughout where boxes were carried from other frames.
        self.values = [
            name for name in VALUES if name in baseline.values and baseline.values[name].count
        ]
        counted = 2 if baseline.pictures is not None else 0
        lines = 1 + len(EXPRESSIONS) + len(self.values) + counted
        self.alpha = params.significance / lines

    def expressions(self) -> Line:
        before, after = (list(one.expressions.values()) for one in (self.baseline, self.now))
        return self._line(
            "expressions",
            "shares of the seven expressions",
            "expressions",
            (None, None),
            (self.baseline.faces, self.now.faces),
            PSI,
            self.params.max_psi,
            lambda: stability_index(before, after),
            lambda _: shares_probability(before, after),
        )

    def expression(self, name: str) -> Line:
        return self._share(
            f"share of {name}",
            "of all faces",
            (self.baseline.expressions[name], self.now.expressions[name]),
            (self.baseline.faces, self.now.faces),
        )

    def pictures(self) -> list[Line]:
        one, other = self.baseline, self.now
        pictures = (one.pictures or 0, other.pictures or 0)
        refused = (one.quarantined or 0, other.quarantined or 0)
        tried = (pictures[0] + refused[0], pictures[1] + refused[1])
        without = (one.without_face or 0, other.without_face or 0)
        return [
            self._share("without a face", "of the pictures analysed", without, pictures),
            self._share("quarantined", "of the pictures tried: not readable", refused, tried),
        ]

    def value(self, name: str) -> Line:
        before, after = self.baseline.values[name], self.now.values[name]
        known = before.mean is not None and after.mean is not None
        counts = (before.count, after.count)
        meaning = VALUES[name].meaning
        if unit := VALUES[name].unit:
            meaning += f", {unit}"
        return self._line(
            name.replace("_", " "),
            meaning if known else f"{meaning}; median",
            "value",
            (before.mean, after.mean) if known else (before.median, after.median),
            counts,
            KS,
            self.params.max_ks,
            lambda: largest_gap(before.values, after.values),
            lambda gap: gap_probability(gap, *counts),
        )

    def _share(
        self, name: str, meaning: str, found: tuple[int, int], counts: tuple[int, int]
    ) -> Line:
        before, after = (
            one / count if count else None for one, count in zip(found, counts, strict=True)
        )
        return self._line(
            name,
            meaning,
            "share",
            (before, after),
            counts,
            H,
            self.params.max_share_effect,
            lambda: share_effect(before or 0.0, after or 0.0),
            lambda effect: share_probability(effect, *counts),
        )

    def _line(
        self,
        name: str,
        meaning: str,
        kind: str,
        shown: tuple[float | None, float | None],
        counts: tuple[int, int],
        statistic: str,
        threshold: float,
        measure: Callable[[], float],
        chance: Callable[[float], float],
    ) -> Line:
        effect = probability = None
        verdict = TOO_FEW
        if min(counts) >= self.params.min_faces:
            effect = measure()
            probability = chance(effect)
            drifted = effect >= threshold and probability < self.alpha
            verdict = DRIFT if drifted else STEADY
        return Line(
            name,
            meaning,
            kind,
            *shown,
            *counts,
            statistic,
            effect,
            threshold,
            probability,
            verdict,
        )
