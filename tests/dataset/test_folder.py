"""A folder as the source: what is read, what is passed over, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from facefiles import encoded, noise, silent, summary, tree, write_folder

from fer.dataset.sources.folder import read_folder
from fer.dataset.sources.layout import image_of
from fer.errors import SourceError


def test_every_image_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    files = tree()
    images = list(read_folder(write_folder(tmp_path, files), silent))
    assert summary(images) == summary(image_of(name, one) for name, one in files.items())
    assert [image.name for image in images] == sorted(image.name for image in images)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_folder(tmp_path, tree({"train": 1}))
    list(read_folder(tmp_path, lambda done, total: calls.append((done, total))))
    assert calls == [(number, 7) for number in range(1, 8)]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    litter = {
        "__MACOSX/train/happy/._1.png": b"fork",
        "train/happy/.DS_Store": b"",
        "train/happy/Thumbs.db": b"",
        "README.md": b"",
        ".cache/x.png": b"",
    }
    write_folder(tmp_path, {**litter, "train/happy/1.png": encoded(noise(1))})
    assert [image.name for image in read_folder(tmp_path, silent)] == ["train/happy/1.png"]


def test_a_damaged_or_oversized_file_is_a_row(tmp_path: Path) -> None:
    write_folder(
        tmp_path,
        {
            "train/sad/1.png": b"text",
            "train/sad/2.png": bytes((4 << 20) + 1),
            "train/sad/3.png": b"",
        },
    )
    problems = [image.problem for image in read_folder(tmp_path, silent)]
    assert problems[0] is not None
    assert problems[0].startswith("unreadable")
    assert problems[1] == f"too large: over {4 << 20} bytes"
    assert problems[2] is not None


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, what: str) -> None:
    outside = write_folder(tmp_path / "outside", {"secret.png": encoded(noise(1))})
    root = write_folder(tmp_path / "root", tree({"train": 1}))
    if what == "file":
        (root / "train" / "sad" / "9.png").symlink_to(outside / "secret.png")
    else:
        (root / "test").symlink_to(outside)
    with pytest.raises(SourceError, match="leads out"):
        list(read_folder(root, silent))


def test_a_link_inside_is_fine_and_so_is_a_link_to_the_root(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root", tree({"train": 1}))
    (root / "train" / "sad" / "copy.png").symlink_to(root / "train" / "sad" / "0.png")
    (tmp_path / "link").symlink_to(root)
    assert len(list(read_folder(tmp_path / "link", silent))) == 8


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root", tree({"train": 1}))
    (root / "train" / "again").symlink_to(root)
    assert len(list(read_folder(root, silent))) == 7


def test_a_name_that_is_no_unicode_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "sad"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(encoded(noise(1)))
    (image,) = read_folder(tmp_path, silent)
    assert image.name == "train/sad/\\udcff.png"
    assert image.pixels is not None


def test_an_empty_folder_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="train/<class>/"):
        list(read_folder(tmp_path, silent))


def test_a_folder_with_the_csv_says_to_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(SourceError, match=r"fer2013\.csv.*name the file"):
        list(read_folder(tmp_path, silent))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_not_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path, tree({"train": 1}))
    (root / "train" / "sad").chmod(0)
    try:
        with pytest.raises(SourceError, match="cannot be read"):
            list(read_folder(root, silent))
    finally:
        (root / "train" / "sad").chmod(0o755)


def test_more_files_than_any_fer2013_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.dataset.sources.folder.MAX_IMAGES", 6)
    with pytest.raises(SourceError, match="7 images"):
        list(read_folder(write_folder(tmp_path, tree({"train": 1})), silent))
