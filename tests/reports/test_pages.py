from __future__ import annotations

import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fer.errors import TableError, UsageError
from fer.expressions import EXPRESSIONS
from fer.inference.results import (
    quarantine_schema,
    results_schema,
    to_parquet,
    to_table,
)
from fer.reports.html import Bar, Fact, Image, Link, Section, Table
from fer.reports.pages import batch_page, render_summary

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOSTILE = '<script>alert("x")</script>&.png'
VOID = {"meta", "img", "br", "link"}


class Checker(HTMLParser):
    """Collects tags and text, and finds tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @classmethod
    def of(cls, path: Path) -> Checker:
        checker = cls()
        checker.feed(path.read_text())
        checker.close()
        assert checker._open == []
        return checker


def face(uri: str, index: int | None, expression: str | None = None, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "uri": uri,
        "etag": "1-1",
        "media": "image",
        "width": 100,
        "height": 80,
        "frame": 0,
        "face": index,
        "detector": "dlib-hog",
        "faces_digest": "d",
        "model_name": "test-model",
        "model_version": 3,
        "model_digest": "m",
        "run_id": "r",
        "analysed_at": NOW,
    }
    if expression is not None:
        row |= {"expression": expression, "confidence": 0.75}
        row |= {f"p_{name}": 0.75 if name == expression else 0.04 for name in EXPRESSIONS}
    return row | more


def refused(uri: str, reason: str) -> dict[str, Any]:
    return {
        "uri": uri,
        "etag": "1-1",
        "reason": reason,
        "faces_digest": "d",
        "model_digest": "m",
        "run_id": "r",
        "analysed_at": NOW,
    }


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """An output folder as a batch leaves it, in two parts."""
    parts = [
        [face("file:///in/a.jpg", 0, "happy"), face("file:///in/a.jpg", 1, "happy")],
        [
            face("file:///in/b.jpg", 0, "sad", quality_marks=["small", "dark"]),
            face("file:///in/c.jpg", None),
            face("file:///in/" + HOSTILE, 0, "neutral"),
        ],
    ]
    folder = tmp_path / "batch"
    for name, schema, tables in (
        ("parts", results_schema(), parts),
        (
            "quarantine",
            quarantine_schema(),
            [[refused("file:///in/broken.jpg", "truncated <JPEG>")]],
        ),
    ):
        (folder / name).mkdir(parents=True)
        for number, rows in enumerate(tables):
            data = to_parquet(to_table(rows, schema))
            (folder / name / f"part-{number}.parquet").write_bytes(data)
    return folder


def test_a_batch_is_counted(batch: Path, tmp_path: Path) -> None:
    page = Checker.of(batch_page(batch, tmp_path / "page.html"))
    text = " ".join(page.text.split())
    assert "4pictures analysed" in text
    assert "4faces found" in text
    assert "1picture without a face" in text
    assert "test-model version 3; faces found by dlib-hog" in text
    assert "50.0\u00a0%" in page.text  # happy: two of four
    assert "/in/broken.jpg" in text
    assert "truncated <JPEG>" in text
    assert "small" in text
    assert "script" not in page.tags
    assert HOSTILE in page.text


def test_a_batch_page_holds_no_picture(batch: Path, tmp_path: Path) -> None:
    page = Checker.of(batch_page(batch, tmp_path / "page.html"))
    assert "img" not in page.tags
    assert page.sources == []


def test_files_and_tables_give_the_same_page(batch: Path, tmp_path: Path) -> None:
    files = batch_page(
        sorted((batch / "parts").iterdir()),
        tmp_path / "files.html",
        quarantine=sorted((batch / "quarantine").iterdir()),
    )
    assert files.read_text() == batch_page(batch, tmp_path / "folder.html").read_text()


def test_a_batch_without_rows(tmp_path: Path) -> None:
    page = Checker.of(batch_page(results_schema().empty_table(), tmp_path / "page.html"))
    assert "No picture was analysed" in page.text


def test_a_long_batch_says_what_it_leaves_out(tmp_path: Path) -> None:
    rows = [face(f"file:///in/{number:04}.jpg", 0, "fear") for number in range(250)]
    page = Checker.of(batch_page(to_table(rows, results_schema()), tmp_path / "page.html"))
    assert "The first 200 of 250 pictures" in page.text
    assert "0199.jpg" in page.text
    assert "0200.jpg" not in page.text


def test_files_that_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    good = results_schema().empty_table()
    with pytest.raises(TableError, match=r"bad\.parquet"):
        batch_page(tmp_path / "bad.parquet", tmp_path / "page.html")
    with pytest.raises(TableError, match=r"bad\.parquet"):
        batch_page(good, tmp_path / "page.html", quarantine=tmp_path / "bad.parquet")
    with pytest.raises(TableError, match=r"absent\.parquet"):
        batch_page(tmp_path / "absent.parquet", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_summary_shows_every_kind_of_content(tmp_path: Path) -> None:
    from fer.evaluation.metrics import confusion_matrix
    from fer.reports.plots import plot_confusion

    plot_confusion(confusion_matrix([3, 2], [3, 3]), tmp_path / "plot.png")
    sections = [
        Section(
            "All",
            text="First paragraph.\n\nSecond <b>paragraph</b>.",
            facts=[Fact("64 %", "accuracy", "a note")],
            table=Table(["name", "n", "share"], [["x", 12345, Bar(0.5, "half", "#112233")]]),
            images=[Image(tmp_path / "plot.png", "a plot", "its caption")],
            links=[Link("the metrics", "metrics.json")],
        ),
        Section("Folded", text="inside", open=False),
        Section("Empty table", table=Table(["a"], [])),
    ]
    page = Checker.of(render_summary(tmp_path / "out" / "page.html", sections, title="A & B"))
    assert page.tags.count("p") == 3  # two, and the folded one; there is no lead
    for text in ("First paragraph.", "Second <b>paragraph</b>.", "12,345", "half", "its caption"):
        assert text in page.text
    assert "details" in page.tags
    assert any(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "metrics.json" in page.sources
    raw = (tmp_path / "out" / "page.html").read_text()
    assert "<title>A &amp; B</title>" in raw
    assert "width: 50.00%; background: #112233" in raw


def test_bars_never_leave_their_track(tmp_path: Path) -> None:
    table = Table(["share"], [[Bar(-1.0, "below")], [Bar(7.0, "above")]])
    page = render_summary(tmp_path / "page.html", [Section("Bars", table=table)]).read_text()
    assert "width: 0.00%" in page
    assert "width: 100.00%" in page


def test_images_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("text")
    for path, message in ((tmp_path / "no.png", "cannot be put"), (tmp_path / "page.txt", "use .")):
        with pytest.raises(UsageError, match=message):
            render_summary(tmp_path / "page.html", [Section("x", images=[Image(path, "x")])])
    assert not (tmp_path / "page.html").exists()
