"""A whole report: the page, its tables, the command, and a clip from its pixels to its page."""

from __future__ import annotations

import csv
import json
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from analyses import Track, showing, write
from typer.testing import CliRunner, Result

from fer.cli import app
from fer.errors import UsageError
from fer.expressions import Expression
from fer.params import TimelineParams, VideoParams
from fer.reference import reference_package
from fer.reports.report_notes import PLOTTED
from fer.reports.video_report import video_report

HOSTILE = '<script>alert("x")</script>&'
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Tags, text and addresses of a page whose tags are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two videos of 10 s: three people in the first, one of them again in the second."""
    folder, times = tmp_path / "results", np.arange(100) / 10
    tracks: dict[int, Track] = {
        0: (range(100), showing(("happy", 50), ("sad", 50))),
        1: (range(50), showing(("neutral", 50))),
        2: (range(20, 60), showing(("happy", 40))),
        3: (range(5), showing(("fear", 5))),
    }
    write(folder / "one.parquet", times, tracks, marked={(0, 0): ["dark"]})
    write(folder / "two.parquet", times, {0: (range(30, 100), showing(("surprise", 70)))})
    (tmp_path / "people.csv").write_text(
        "video,track,person\none,0,Anna\none,1,Ben\none,2,Cem\none,3,\ntwo,0,Anna\n"
    )
    (tmp_path / "segments.csv").write_text("name,start,end,video\nad,0,5,\ntask,5,10,one\n")
    return folder


def test_the_tables_say_who_showed_what(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    written = video_report(
        [study],
        out,
        segments=tmp_path / "segments.csv",
        people=tmp_path / "people.csv",
        params=TimelineParams(smoothing=0),
    )
    assert written.page == out / "index.html"
    sums = {
        (row["video"], row["person"], row["segment"], row["expression"]): row
        for row in table(out / "sums.csv")
    }
    assert len(sums) == 7 * (3 * 3 + 2)
    anna = sums["one", "Anna", "(all)", "happy"]
    assert (anna["seconds"], anna["share"], anna["episodes"]) == ("5.0", "0.5", "1")
    assert float(anna["mean_probability"]) == pytest.approx(0.45)
    assert sums["one", "Anna", "ad", "happy"]["share"] == "1.0"
    assert sums["one", "Ben", "task", "neutral"]["seconds"] == "0.0"
    assert sums["one", "Ben", "task", "neutral"]["share"] == ""
    means = {(row["segment"], row["expression"]): row for row in table(out / "means.csv")}
    # Anna was seen for 10 and 7 s: happy for 5 of 17; Cem always, Ben never.
    happy = means["(all)", "happy"]
    assert happy["people"] == "3"
    assert float(happy["share"]) == pytest.approx((5 / 17 + 1 + 0) / 3, abs=1e-6)
    assert float(happy["share_low"]) < float(happy["share"]) < float(happy["share_high"])
    assert means["task", "happy"]["people"] == "2"
    assert means["task", "happy"]["share_low"] == ""
    seen = table(out / "seen.csv")
    assert [(row["video"], row["person"], row["tracks"]) for row in seen] == [
        ("one", "Anna", "0"), ("one", "Ben", "1"), ("one", "Cem", "2"), ("two", "Anna", "0")
    ]  # fmt: skip
    assert (seen[2]["first"], seen[2]["last"], seen[2]["seconds"]) == ("2.0", "6.0", "4.0")
    assert seen[0]["marked"] == "1"
    episodes = table(out / "episodes.csv")
    assert ("Cem", "happy", "2.0", "4.0") in [
        (row["person"], row["expression"], row["start"], row["seconds"]) for row in episodes
    ]


def test_the_page_needs_nothing_but_itself(study: Path, tmp_path: Path) -> None:
    written = video_report(
        [study], tmp_path, segments=tmp_path / "segments.csv", people=tmp_path / "people.csv"
    )
    page = Page(written.page)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    outside = [one for one in page.sources if not one.startswith("data:image/png;base64,")]
    assert outside == ["sums.csv", "means.csv", "seen.csv", "episodes.csv"]
    assert all((tmp_path / one).is_file() for one in outside)
    text = " ".join(page.text.split())
    for words in (
        "one.mp4, 640x480. Model test-model, version 3; faces found by dlib-hog.",
        "0:00:00.0 to 0:00:10.0, a frame every 0.1 s",
        "Left out as the list of people says: track 3.",
        "it is not what a person feels",
        "card.md in its package",
        "smoothing over 0.15 s",
        "one: by segment",
    ):
        assert words in text, words
    assert "67." not in text  # no figures of a model that is not at hand
    assert "No list of people" not in text


def test_what_the_reader_should_know_is_said(study: Path, tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text("name,start,end\na,0,6\nb,5,9\nc,8,60\n")
    write(study / "three.parquet", [0.0, 1.0, 2.0], {}, model_digest="n" * 64)
    written = video_report([study], tmp_path / "out", segments=tmp_path / "segments.csv")
    notes = "\n".join(written.notes)
    for words in (
        "In three no face was seen.",
        "analysed by different models",
        "each track counts as a participant",
        "overlap, and the time they share counts in both: a and b, b and c.",
        "only what is inside counts: c in one, a in three, b in three, c in three, c in two.",
    ):
        assert words in notes, words
    text = Page(written.page).text
    assert all(note in text for note in written.notes)
    (tmp_path / "people.csv").write_text("video,track,person\none,0,Anna\none,1,Anna\n")
    written = video_report(
        [study / "one.parquet"], tmp_path / "out", people=tmp_path / "people.csv"
    )
    (note,) = written.notes
    assert "not in the list of people, 2, count" in note
    assert "one #2, one #3" in note
    assert "Anna has two faces in 50 frames" in Page(written.page).text


def test_results_without_a_face_have_a_page_that_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", np.arange(20) / 10, {}, corrupt=[3])
    written = video_report([tmp_path / "a.parquet"], tmp_path / "out")
    text = Page(written.page).text
    assert "No face was seen" in text
    assert "1corrupt frames" in " ".join(text.split()).replace("> ", "")
    assert table(tmp_path / "out" / "sums.csv") == []
    assert written.document()["sums"] == []


def test_names_from_files_are_text(tmp_path: Path) -> None:
    results = write(
        tmp_path / "<b>v&.parquet",
        np.arange(30) / 10,
        {0: (range(30), showing(("happy", 30)))},
        model_name=HOSTILE,
        uri="file:///in/%3Ci%3E.mp4",
    )
    quoted = HOSTILE.replace('"', '""')
    (tmp_path / "s.csv").write_text(f'name,start,end\n"{quoted}",0,2\n')
    (tmp_path / "p.csv").write_text(f'video,track,person\n<b>v&,0,"{quoted}"\n')
    results.with_suffix(".json").write_text(
        json.dumps({"frames": 30, "model_digest": "m" * 64, "warnings": [f"warning {HOSTILE}"]})
    )
    written = video_report(
        [results], tmp_path / "out", segments=tmp_path / "s.csv", people=tmp_path / "p.csv"
    )
    page = Page(written.page)
    assert "script" not in page.tags
    assert "<script" not in written.page.read_text(encoding="utf-8")
    assert "<b>v" not in written.page.read_text(encoding="utf-8")
    assert "<i>.mp4" in page.text
    assert page.text.count(HOSTILE) >= 4
    assert {row["person"] for row in table(tmp_path / "out" / "sums.csv")} == {HOSTILE}


def test_many_tracks_have_a_plot_each_up_to_a_limit(tmp_path: Path) -> None:
    count = PLOTTED + 3
    tracks: dict[int, Track] = {
        number: (range(10 * number, 10 * number + 3 + number), showing(("sad", 3 + number)))
        for number in range(count)
    }
    write(tmp_path / "a.parquet", np.arange(10 * count + 30) / 10, tracks)
    written = video_report([tmp_path / "a.parquet"], tmp_path / "out")
    page = Page(written.page)
    assert page.tags.count("img") == PLOTTED
    assert f"a has {count} participants; the timelines are of the {PLOTTED} seen longest" in (
        page.text
    )
    assert len(table(tmp_path / "out" / "seen.csv")) == count
    assert "Timeline of a #2 in a" not in written.page.read_text()
    assert "Timeline of a #3 in a" in written.page.read_text()


def test_a_long_video_takes_little_memory(tmp_path: Path) -> None:
    """Ten minutes of three people; an hour is six times that, and 1 GB is the limit."""
    frames = 18_000
    values = np.tile(showing(("happy", 450), ("sad", 450)), (frames // 900, 1))
    tracks: dict[int, Track] = {number: (range(frames), values) for number in range(3)}
    write(tmp_path / "a.parquet", np.arange(frames) / 30, tracks)
    tracemalloc.start()
    try:
        written = video_report([tmp_path / "a.parquet"], tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written.videos[0].counts.faces == 3 * frames
    assert peak < 3 * frames * 800 + 60e6, f"{peak / 1e6:.0f} MB"
    assert written.page.stat().st_size < 2e6


FRAMES, FPS = 60, 20


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn person in 60 frames that come at two rates, as the shipped model sees them."""
    from fer.inference.recognizer import Recognizer
    from fer.inference.video import analyze_video

    folder = tmp_path_factory.mktemp("analysed")
    frames = []
    for number in range(FRAMES):
        frame = clips.wall(440, 240)
        expression = Expression.HAPPY if number < 30 else Expression.SURPRISE
        clips.paste(frame, clips.person(2, expression), 20 + number, 0)
        frames.append(frame)
    clip = clips.write(folder / "clip.mp4", frames, FPS)
    # OpenCV's time scale is 1/10240 s at 20 frames/s: the second half takes twice as long.
    clips.set_durations(clip, [512] * 30 + [1024] * 30)
    analyze_video(clip, Recognizer.load(), folder / "clip.parquet", params=VideoParams())
    return folder


def test_from_a_clip_to_its_report(analysed: Path, tmp_path: Path) -> None:
    summary: dict[str, Any] = json.loads((analysed / "clip.json").read_text())
    (tmp_path / "s.csv").write_text("name,start,end\nfirst,0,1.5\nsecond,1.5,60\n")
    out = tmp_path / "out"
    written = video_report([analysed], out, segments=tmp_path / "s.csv")
    (video,) = written.videos
    assert video.seconds == pytest.approx(summary["end"] - summary["start"], abs=0.06)
    assert video.counts.frames == FRAMES
    rows = table(out / "sums.csv")
    for segment, seconds in (("first", 1.5), ("second", video.seconds - 1.5)):
        total = sum(float(row["seconds"]) for row in rows if row["segment"] == segment)
        # All but what passes before the first detection.
        assert total == pytest.approx(seconds, abs=0.25)
    episodes = [
        (row["expression"], float(row["start"]), float(row["end"]))
        for row in table(out / "episodes.csv")
    ]
    wanted = [(one["expression"], one["start"], one["end"]) for one in summary["episodes"]]
    assert [one[0] for one in episodes] == [one[0] for one in wanted]
    assert [one[1:] for one in episodes] == [pytest.approx(one[1:], abs=1e-3) for one in wanted]
    text = Page(written.page).text
    right = json.loads(reference_package().file("metrics.json").read_bytes())["test"]["accuracy"]
    assert f"Of 3,589 test pictures this model gives {right * 100:.1f}" in text
    assert "clip #0" in text


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *(str(one) for one in arguments)])


def test_the_command(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = ("--segments", tmp_path / "segments.csv", "--people", tmp_path / "people.csv")
    result = run(study, "-o", out, *files, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["page"] == str(out / "index.html")
    assert [Path(one).name for one in document["tables"]] == [
        "sums.csv", "means.csv", "seen.csv", "episodes.csv"
    ]  # fmt: skip
    assert [one["participants"] for one in document["videos"]] == [["Anna", "Ben", "Cem"], ["Anna"]]
    anna = next(one for one in document["sums"] if one["participant"] == "Anna")
    assert (anna["segment"], anna["seconds"]) == ("(all)", 17.0)
    assert sum(anna["shares"].values()) == pytest.approx(1.0, abs=1e-5)
    assert [one["participants"] for one in document["means"]] == [3, 3, 2]
    text = run(study, "-o", out, *files)
    assert text.exit_code == 0, text.output
    assert "Anna" in text.stdout
    assert "0:00:17.0" in text.stdout
    assert f"Report: {out / 'index.html'}" in text.stdout


def test_the_command_takes_the_parameters_of_the_timeline(
    study: Path, tmp_path: Path, checkout: Path
) -> None:
    params = (checkout / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "p.yaml").write_text(params.replace("min_episode: 0.3 ", "min_episode: 60 "))
    for more, there in (((), True), (("--params", tmp_path / "p.yaml"), False)):
        assert run(study, "-o", tmp_path / "out", *more).exit_code == 0
        assert bool(table(tmp_path / "out" / "episodes.csv")) is there


def test_the_command_refuses_what_makes_no_sense(study: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text("video,track,person\none,9,A\n")
    (tmp_path / "out").mkdir()
    sums = tmp_path / "out" / "sums.csv"
    sums.write_text("name,start,end\na,0,1\n")
    for arguments, words in (
        ((study, "-o", people), "is a file; a report is a folder"),
        ((study, "-o", tmp_path / "new", "--people", people), "one has no track 9"),
        ((study, "-o", tmp_path / "out", "--segments", sums), "would overwrite"),
        ((tmp_path / "absent",), "There is no"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, UsageError)
        assert words in str(result.exception)
    assert not (tmp_path / "new").exists()
    assert sums.read_text().startswith("name,start,end")
