"""`fer data fetch`: every source becomes one table, and every bad one a single clear error."""

from __future__ import annotations

import csv
import hashlib
import http.server
import json
import os
import pty
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from facefiles import (
    ROOT,
    Files,
    csv_row,
    encoded,
    noise,
    params_file,
    sound_csv,
    tree,
    write_csv,
    write_folder,
    write_tar,
    write_zip,
)
from smalldisk import on_small_disk

from fer.dataset.fetch import fetch
from fer.dataset.table import read_source
from fer.evaluation.ferplus import VOTES
from fer.params import load_params

OUTPUTS = ["ferplus.parquet", "images.parquet", "source.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def fetched(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run the command on a source, into <tmp>/out."""

    def run(source: object = "synthetic", *more: object, **data: Any) -> Any:
        params = params_file(tmp_path / "params.yaml", source=str(source), **data)
        return cli("data", "fetch", "--params", params, "--out", tmp_path / "out", *more)

    return run


@pytest.fixture
def refused(fetched: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Run the command on a bad source: one line on stderr, a status, and nothing written."""

    def run(source: object, status: int = 2, **data: Any) -> str:
        ended = fetched(source, **data)
        assert ended.status == status, ended.err
        assert ended.out == ""
        assert ended.err.startswith("fer: ")
        assert ended.err.count("\n") == 1, ended.err
        assert names(tmp_path / "out") == []
        return str(ended.err)

    return run


def kinds(folder: Path) -> dict[str, Path]:
    files = tree()
    return {
        "folder": write_folder(folder / "folder", files),
        "zip": write_zip(folder / "f.zip", files),
        "tar": write_tar(folder / "f.tar.gz", files, "w:gz"),
        "csv": sound_csv(folder / "fer2013.CSV"),
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "csv"])
def test_every_kind_of_source_becomes_a_table(
    fetched: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    ended = fetched(kinds(tmp_path)[kind])
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("35 images (test 7, train 21, validation 7) in ")
    assert names(tmp_path / "out") == OUTPUTS
    table = read_source(tmp_path / "out" / "images.parquet")
    assert table.num_rows == 35
    facts = json.loads((tmp_path / "out" / "source.json").read_text())
    assert facts == {
        "kind": {"zip": "archive", "tar": "archive", "csv": "competition"}.get(kind, kind),
        "images": 35,
        "unreadable": 0,
        "splits": {"train": 21, "validation": 7, "test": 7},
        "sha256": digest(tmp_path / "out" / "images.parquet"),
    }


def test_json_is_all_there_is_on_stdout(fetched: Callable[..., Any], tmp_path: Path) -> None:
    ended = fetched(kinds(tmp_path)["zip"], "--json")
    assert json.loads(ended.out)["images"] == 35
    assert ended.err == ""


def test_synthetic_faces_need_no_source(fetched: Callable[..., Any], tmp_path: Path) -> None:
    data = {"images_per_class": 10, "duplicates": 0.0}
    assert fetched("synthetic", synthetic=data).status == 0
    assert json.loads((tmp_path / "out" / "source.json").read_text())["kind"] == "synthetic"
    assert read_source(tmp_path / "out" / "images.parquet").num_rows == 70


def test_the_same_images_from_anywhere_are_the_same_bytes(
    fetched: Callable[..., Any], tmp_path: Path
) -> None:
    digests = set()
    for kind in ("folder", "zip", "tar", "zip"):
        assert fetched(kinds(tmp_path)[kind]).status == 0
        digests.add(digest(tmp_path / "out" / "images.parquet"))
    assert len(digests) == 1


def test_fer_data_is_read_instead(
    fetched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA", str(kinds(tmp_path)["zip"]))
    assert fetched("kaggle").status == 0
    assert json.loads((tmp_path / "out" / "source.json").read_text())["kind"] == "archive"


def test_a_stated_digest_is_checked_of_a_local_file(
    fetched: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    path = kinds(tmp_path)["zip"]
    assert "has sha256" in refused(path, sha256="0" * 64)
    assert "folder" in refused(kinds(tmp_path)["folder"], sha256="0" * 64)
    assert fetched(path, sha256=digest(path)).status == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("absent.zip", ["absent.zip, which does not exist"]),
        ("Kagle", ["did you mean kaggle?"]),
        ("synthetc", ["did you mean synthetic?"]),
        ("/dev/null", ["neither a file nor a folder"]),
        ("ftp://host/fer2013.zip", ["only https:// and s3://"]),
        ("http://example.org/fer2013.zip", ["only https:// and s3://"]),
        ("https://example.org/fer2013.zip", ["data.sha256 is required"]),
        ("s3://bucket/fer2013.zip", ["data.sha256 is required"]),
    ],
)
def test_a_source_that_is_not_there(
    refused: Callable[..., str], source: str, words: list[str]
) -> None:
    message = refused(source)
    assert all(word in message for word in words)


def test_fer_data_that_is_not_there(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA", "/absent.zip")
    assert "FER_DATA names /absent.zip" in refused("kaggle")


def damaged(folder: Path, fault: str) -> Path:
    path = folder / "fer2013.zip"
    files: Files = tree()
    match fault:
        case "truncated in the middle" | "truncated at the end":
            data = write_zip(path, files).read_bytes()
            path.write_bytes(data[: len(data) // 2] if "middle" in fault else data[:-1])
        case "flipped byte":
            data = bytearray(write_zip(path, files, zipfile.ZIP_STORED).read_bytes())
            data[data.find(files["train/sad/0.png"]) + 300] ^= 4
            path.write_bytes(data)
        case "climbs out":
            write_zip(path, {**files, "../../train/sad/x.png": encoded(noise(1))})
        case "bomb":
            write_zip(path, {**files, "train/sad/x.png": bytes(64 << 20)})
        case "bomb of pixels":
            large = encoded(np.zeros((1024, 1024), np.uint8))
            write_zip(path, {f"train/sad/{number}.png": large for number in range(20)})
        case "empty":
            path.write_bytes(b"")
        case "no images":
            write_zip(path, {"readme.txt": b"nothing"})
        case "csv without its columns":
            path = write_csv(folder / "fer2013.csv", [], "a,b")
        case "csv without rows":
            path = write_csv(folder / "fer2013.csv", [])
        case "csv in another encoding":
            path = folder / "fer2013.csv"
            path.write_bytes(b"emotion,pixels,Usage\n\xff\n")
        case "empty folder":
            path = folder / "empty"
            path.mkdir()
    return path


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("truncated in the middle", "neither a zip nor a tar"),
        ("truncated at the end", "neither a zip nor a tar"),
        ("flipped byte", "Bad CRC-32 for file 'train/sad/0.png'"),
        ("climbs out", "'../../train/sad/x.png' leads out of its folder"),
        ("bomb", "states 67,108,864 bytes"),
        ("bomb of pixels", "pixels together"),
        ("empty", "neither a zip nor a tar"),
        ("no images", "train/<class>/"),
        ("csv without its columns", "no column 'emotion'"),
        ("csv without rows", "no image"),
        ("csv in another encoding", "no CSV table"),
        ("empty folder", "train/<class>/"),
    ],
)
def test_a_bad_source_is_one_error_and_writes_nothing(
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    words: str,
) -> None:
    if fault == "bomb of pixels":
        monkeypatch.setattr("fer.dataset.fetch.MAX_PIXELS", 10 << 20)
    assert words in refused(damaged(tmp_path, fault))


def test_a_bad_source_leaves_the_table_of_a_good_one(
    fetched: Callable[..., Any], tmp_path: Path
) -> None:
    assert fetched(kinds(tmp_path)["zip"]).status == 0
    before = {name: digest(tmp_path / "out" / name) for name in OUTPUTS}
    (tmp_path / "bad").mkdir()
    assert fetched(damaged(tmp_path / "bad", "flipped byte")).status == 2
    assert {name: digest(tmp_path / "out" / name) for name in names(tmp_path / "out")} == before


GATE_FAULTS: dict[str, tuple[Callable[[Files], Files], str]] = {
    "class folder missing": (
        lambda files: {n: c for n, c in files.items() if n.split("/")[:2] != ["train", "disgust"]},
        "train/disgust",
    ),
    "class folder extra": (
        lambda files: {**files, "train/contempt/1.png": encoded(noise(999))},
        "train/contempt/1.png (contempt)",
    ),
    "split without images": (
        lambda files: {n: c for n, c in files.items() if not n.startswith("test/")},
        "test: 0",
    ),
    "another size": (
        lambda files: {**files, "train/sad/big.png": encoded(noise(999, 64))},
        "train/sad/big.png (64)",
    ),
    "another colour": (
        lambda files: {
            **files,
            "train/sad/rgb.png": encoded(np.dstack([noise(1), noise(2), noise(3)])),
        },
        "train/sad/rgb.png (RGB)",
    ),
    "a damaged image": (
        lambda files: {**files, "train/sad/bad.png": b"text"},
        "train/sad/bad.png",
    ),
}


@pytest.mark.parametrize("fault", GATE_FAULTS)
def test_what_can_be_read_is_the_gates_to_refuse(
    fetched: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path, fault: str
) -> None:
    change, words = GATE_FAULTS[fault]
    assert fetched(write_zip(tmp_path / "f.zip", change(tree()))).status == 0
    out = tmp_path / "out"
    options = ("--params", tmp_path / "params.yaml", "--source", out)
    ended = cli("data", "validate", *options, "--out", tmp_path / "report")
    assert ended.status == 1
    assert ended.err.startswith("fer: The data gate found ")
    assert words in ended.err
    assert "Traceback" not in ended.err
    # Asked to go on all the same, preparation refuses too, and writes nothing.
    prepared = cli(
        "data", "prepare", *options, "--out", tmp_path / "prepared", "--report", tmp_path / "c.json"
    )
    if fault != "class folder missing":
        assert prepared.status == 1
        assert prepared.err.count("\n") == 1
        assert names(tmp_path / "prepared") == []
        assert not (tmp_path / "c.json").exists()


def test_labels_out_of_range_are_the_gates_to_refuse(
    fetched: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    path = sound_csv(tmp_path / "fer2013.csv")
    with path.open("a") as file:
        file.write(csv_row(7, noise(999), "Training") + "\n")
    assert fetched(path).status == 0
    ended = cli(
        "data", "validate", "--params", tmp_path / "params.yaml",
        "--source", tmp_path / "out", "--out", tmp_path / "report",
    )  # fmt: skip
    assert ended.status == 1
    assert "Training/00035 (emotion 7)" in ended.err


def test_names_with_brackets_are_no_markup(fetched: Callable[..., Any], tmp_path: Path) -> None:
    files = {**tree(), "[red]/sad/1.png": encoded(noise(999))}
    ended = fetched(write_zip(tmp_path / "f.zip", files))
    assert ended.status == 0
    assert "[red] 1" in ended.out


def test_votes_are_written_beside_the_images(
    fetched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = tmp_path / "votes.csv"
    with votes.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *VOTES])
        writer.writerow(["test/sad/0.png", *([1] * 10)])
    monkeypatch.setenv("FER_FERPLUS", str(votes))
    assert fetched(kinds(tmp_path)["zip"]).status == 0
    assert pq.read_table(tmp_path / "out" / "ferplus.parquet")["name"].to_pylist() == [
        "test/sad/0.png"
    ]


def test_votes_that_are_not_there_write_nothing(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_FERPLUS", "/absent.csv")
    assert "FER_FERPLUS" in refused(kinds(tmp_path)["zip"])


def test_a_url_is_downloaded_checked_and_read(
    fetched: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    path = kinds(tmp_path)["zip"]
    handler = partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert "answers 404" in refused(f"{base}/absent.zip", sha256="0" * 64)
        assert "has sha256" in refused(f"{base}/f.zip", sha256="0" * 64)
        assert fetched(f"{base}/f.zip", sha256=digest(path)).status == 0
        server.shutdown()
        thread.join()
    assert json.loads((tmp_path / "out" / "source.json").read_text())["images"] == 35


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_unreachable_url_may_be_tried_again(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.dataset.sources.remote._PAUSE", 0.001)
    # Port 9 is reserved for discarding what it gets, and nothing here offers that.
    assert "cannot be had" in refused("http://127.0.0.1:9/f.zip", status=1, sha256="0" * 64)


@pytest.mark.parametrize("params", ["absent.yaml", "misspelt", "broken"])
def test_bad_params_are_one_error(cli: Callable[..., Any], tmp_path: Path, params: str) -> None:
    path = params_file(tmp_path / "params.yaml")
    if params == "misspelt":
        path.write_text(path.read_text().replace("source:", "sorce:"))
    elif params == "broken":
        path.write_text("seed: [")
    else:
        path = tmp_path / params
    ended = cli("data", "fetch", "--params", path, "--out", tmp_path / "out")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    if params == "misspelt":
        assert "unknown key 'data.sorce'; did you mean 'data.source'?" in ended.err
    assert names(tmp_path / "out") == []


def test_an_output_folder_that_is_a_file_is_one_error(
    fetched: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    ended = fetched(kinds(tmp_path)["zip"])
    assert ended.status == 1
    assert str(tmp_path / "out") in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written_is_one_error(
    fetched: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    ended = fetched(kinds(tmp_path)["zip"])
    assert ended.status == 1
    assert "Permission denied" in ended.err
    assert names(tmp_path / "out") == []


def many(path: Path) -> Path:
    """A source whose table takes some 700 kB."""
    files = {f"train/sad/{number}.png": encoded(noise(number)) for number in range(300)}
    return write_zip(path, files)


@pytest.mark.parametrize("size", ["64k", "500k"])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, size: str) -> None:
    source = many(tmp_path / "f.zip")
    params = params_file(tmp_path / "params.yaml", source=str(source))
    disk = tmp_path / "disk"
    done = on_small_disk(
        disk,
        size,
        [sys.executable, "-m", "fer", "data", "fetch", "--params", str(params), "--out",
         str(disk / "out")],
        folder=ROOT,
    )  # fmt: skip
    assert done.status == 1, done.stderr
    assert done.stderr.startswith("fer: the disk is full")
    assert done.stderr.count("\n") == 1
    assert [name for name in done.left if name != "out"] == []


def test_a_full_cache_is_one_error_and_the_rest_can_be_resumed(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(1 << 20)  # noqa: S311
    (tmp_path / "f.zip").write_bytes(content)
    handler = partial(_Quiet, directory=str(tmp_path))
    disk = tmp_path / "disk"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/f.zip"
        params = params_file(
            tmp_path / "params.yaml", source=url, sha256=hashlib.sha256(content).hexdigest()
        )
        done = on_small_disk(
            disk,
            "300k",
            [sys.executable, "-m", "fer", "data", "fetch", "--params", str(params), "--out",
             str(tmp_path / "out")],
            {"FER_CACHE": str(disk)},
            ROOT,
        )  # fmt: skip
        server.shutdown()
        thread.join()
    assert done.status == 1, done.stderr
    assert done.stderr.startswith("fer: the disk is full")
    assert done.stderr.count("\n") == 1
    assert str(disk) in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_limit_on_file_sizes_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = many(tmp_path / "f.zip")
    params = params_file(tmp_path / "params.yaml", source=str(source))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from fer.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "fetch", "--params", str(params), "--out",
         str(tmp_path / "out")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("fer: the disk is full, or a limit on file sizes")
    assert done.stderr.count("\n") == 1
    assert names(tmp_path / "out") == []


def test_an_interrupted_fetch_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(params_file(tmp_path / "p.yaml", source=str(kinds(tmp_path)["zip"])))
    calls = []

    def interrupt(self: object, done: int, total: int) -> None:
        calls.append(done)
        if done == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr("fer.progress.Progress.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(params.data, 1, tmp_path / "out")
    assert len(calls) == 20
    assert names(tmp_path / "out") == []


def test_offline_kaggle_says_what_to_do(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kagglehub")
    monkeypatch.setenv("FER_OFFLINE", "1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    assert "FER_DATA" in refused("kaggle")


def on_terminal(*arguments: str) -> tuple[int, str, str]:
    """Status and stdout of a command, and what its stderr, a terminal, was shown."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fer", *arguments],
        stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # Linux's way to say that the other end closed
            pass
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(ours)
    return process.returncode, out, shown.decode(errors="replace")


def test_a_terminal_sees_a_bar_for_each_stage(tmp_path: Path) -> None:
    params = str(params_file(tmp_path / "params.yaml", source=str(kinds(tmp_path)["zip"])))
    out = str(tmp_path / "out")
    status, result, shown = on_terminal("data", "fetch", "--json", "--params", params, "--out", out)
    assert (status, json.loads(result)["images"]) == (0, 35)
    assert "Reading the source" in shown
    assert "35/35" in shown
    options = ("--json", "--params", params, "--source", out)
    status, result, shown = on_terminal(
        "data", "validate", *options, "--out", str(tmp_path / "report")
    )
    assert (status, json.loads(result)["passed"]) == (0, True)
    assert "Judging the source table" in shown
    assert "6/6" in shown
    status, result, shown = on_terminal(
        "data", "prepare", *options, "--out", str(tmp_path / "made"),
        "--report", str(tmp_path / "c.json"),
    )  # fmt: skip
    assert (status, json.loads(result)["kept"]) == (0, 21)
    assert "Looking for near copies" in shown
    assert "14/14" in shown
