"""What the figures of metrics.json are of, and how a figure's bounds are written.

The evaluation's page, the model card and the README name the same subsets of the test set, each
in its own words; which they are, and in which order, stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

HEADLINES: Final = (
    ("test", "accuracy"),
    ("clean", "accuracy"),
    ("near_twins", "accuracy"),
    ("ferplus", "agreement"),
    ("ferplus_clean", "agreement"),
)
"""Sections of metrics.json, and the share in each that answers how often the model is right."""


def headlines(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Section, figure and figures of each subset that has images.

    Args:
        metrics: content of metrics.json, or its section `views`.
    """
    for section, figure in HEADLINES:
        figures = metrics.get(section, {})
        if figures.get("n"):
            yield section, figure, figures


def bounds(figures: Mapping[str, Any], name: str) -> str:
    """The bounds of a share in per cent: '63.9 to 67.0'."""
    return f"{figures[f'{name}_low'] * 100:.1f} to {figures[f'{name}_high'] * 100:.1f}"


def difference(figures: Mapping[str, Any], unit: str = "") -> str:
    """A paired difference in points: '+0.8 (+0.2 to +1.4)'; `unit` follows the first figure."""
    value, low, high = (figures[f"difference{end}"] * 100 for end in ("", "_low", "_high"))
    return f"{value:+.1f}{unit} ({low:+.1f} to {high:+.1f})"
