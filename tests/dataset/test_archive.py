"""Archives, sound and hostile: every one is rows or one clear error, in bounded memory."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from facefiles import Files, encoded, noise, silent, summary, tree, write_tar, write_zip
from hypothesis import given
from hypothesis import strategies as st

from fer.dataset.sources.archive import read_archive
from fer.dataset.sources.layout import image_of
from fer.dataset.table import SourceImage
from fer.errors import SourceError

FACE = encoded(noise(1))
FILES: Files = {**tree({"train": 1}), "README.md": b"not an image"}
EXPECTED = summary(image_of(name, one) for name, one in FILES.items() if name.endswith(".png"))


def read(path: Path) -> list[SourceImage]:
    return list(read_archive(path, silent))


def refused(path: Path, match: str) -> str:
    with pytest.raises(SourceError, match=match) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_kind_holds_the_same_images(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"source.{kind}"
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED
        write_zip(path, FILES, method)
    else:
        write_tar(path, FILES, "w:" + kind.removeprefix("tar").lstrip("."))
    assert summary(read(path)) == EXPECTED


def test_what_a_shell_packs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "source.tar"
    write_tar(path, {f"./{name}": one for name, one in FILES.items()})
    assert summary(read(path)) == EXPECTED


def test_a_zip_with_the_separators_of_windows_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "source.zip", {n.replace("/", "\\"): c for n, c in FILES.items()})
    assert summary(read(path)) == EXPECTED


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = write_zip(tmp_path / "source.zip", FILES)
    list(read_archive(path, lambda done, total: calls.append((done, total))))
    assert calls == [(number, 7) for number in range(1, 8)]


@pytest.mark.parametrize("where", ["middle", "end", "last byte", "start"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_truncated_archive_is_refused(tmp_path: Path, kind: str, where: str) -> None:
    path = tmp_path / f"source.{kind}"
    if kind == "zip":
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w:" + kind.removeprefix("tar").lstrip("."))
    whole = path.read_bytes()
    cut = {"middle": len(whole) // 2, "end": len(whole) * 99 // 100, "start": 100}
    at = cut.get(where, len(whole) - 1)
    if kind == "tar" and where in {"end", "last byte"}:
        at = len(whole.rstrip(b"\0"))  # what follows is padding
    path.write_bytes(whole[:at])
    refused(path, "damaged|neither a zip nor a tar")


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "source.tar", FILES)
    with tarfile.open(path) as archive:
        fourth = archive.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:fourth])
    refused(path, "end is missing")


@given(cut=st.integers(1, 2000))
def test_any_cut_of_a_zip_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_zip(tmp_path / "source.zip", FILES)
    path.write_bytes(path.read_bytes()[:-cut])
    refused(path, "damaged|neither a zip nor a tar")


def test_a_flipped_byte_inside_a_member_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "source.zip", FILES, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.find(FILES["train/sad/0.png"]) + 200
    data[at] ^= 1
    path.write_bytes(data)
    assert "train/sad/0.png" in refused(path, "CRC")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_no_flipped_byte_changes_an_image_unseen(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"source.{kind}"
    if kind == "zip":
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w:" + kind.removeprefix("tar").lstrip("."))
    whole = path.read_bytes()
    rng = random.Random(1)  # noqa: S311
    refusals = 0
    for _ in range(150):
        at = rng.randrange(len(whole))
        flipped = bytes([whole[at] ^ (1 << rng.randrange(8))])
        path.write_bytes(whole[:at] + flipped + whole[at + 1 :])
        try:
            found = read(path)
        except SourceError:
            refusals += 1
        else:
            # A time stamp, say; but all images, and unaltered.
            assert summary(found) == EXPECTED
    assert refusals > 100


@pytest.mark.parametrize(
    "name",
    [
        "../train/sad/1.png",
        "train/../../sad/1.png",
        "/etc/train/sad/1.png",
        "..\\..\\train\\sad\\1.png",
        "C:\\train\\sad\\1.png",
        "C:train/sad/1.png",
        "//server/share/1.png",
        "../notes.txt",
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "tar" and "\\" in name and not name.startswith("C:"):
        pytest.skip("in a tar a backslash is a letter")
    files = {**FILES, name: FACE}
    path = tmp_path / "inner" / f"source.{kind}"
    path.parent.mkdir()
    (write_zip if kind == "zip" else write_tar)(path, files)
    refused(path, "hostile")
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == [path.name]


def test_a_member_that_states_a_huge_size_is_refused_unread(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {**FILES, "train/sad/bomb.png": bytes(100 << 20)})
    assert path.stat().st_size < 1 << 20
    refused(path, "states 104,857,600 bytes")


def test_members_that_are_huge_together_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.dataset.sources.archive.MAX_BYTES", 10 << 20)
    files = {f"train/sad/{number}.png": bytes(1 << 20) for number in range(11)}
    refused(write_zip(tmp_path / "bomb.zip", files), "would unpack to over")
    refused(write_tar(tmp_path / "bomb.tar.gz", files, "w:gz"), "would unpack to over")


def test_a_huge_member_that_is_no_image_is_never_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "source.zip", {**FILES, "notes.txt": bytes(50 << 20)})
    tracemalloc.start()
    assert summary(read(path)) == EXPECTED
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


def patched(path: Path, name: str, *, size: int) -> Path:
    """Let a member of a zip state another size than it has, in both its headers."""
    data = bytearray(path.read_bytes())
    for signature, at_size, at_name in ((b"PK\1\2", 24, 46), (b"PK\3\4", 22, 30)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            if data[at + at_name :].startswith(name.encode()):
                data[at + at_size : at + at_size + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("stated", [0, 10, 4 << 20])
def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path, stated: int) -> None:
    path = write_zip(tmp_path / "bomb.zip", {**FILES, "train/sad/bomb.png": bytes(200 << 20)})
    patched(path, "train/sad/bomb.png", size=stated)
    tracemalloc.start()
    refused(path, "damaged|CRC")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer.dataset.sources.archive.MAX_IMAGES", 5)
    refused(write_zip(tmp_path / "many.zip", FILES), "over 5 members")
    refused(write_tar(tmp_path / "many.tar", FILES), "over 5 members")


def test_a_list_of_members_that_fills_memory_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    size = 64 << 20
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(end)
    refused(path, "header of over 32 MB")


def test_a_tar_header_that_fills_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    for kind in (b"x", b"L", b"g"):
        header = tarfile.TarInfo("train/sad/1.png")
        header.type = kind
        header.size = 200 << 20
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.tobuf())
            for _ in range(50):
                file.write(bytes(4 << 20))
        tracemalloc.start()
        refused(path, "header of over 32 MB")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 80 << 20


def test_zeros_without_end_after_a_tar_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.dataset.sources.archive.MAX_BYTES", 10 << 20)
    plain = write_tar(tmp_path / "source.tar", FILES).read_bytes()
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(plain + bytes(20 << 20)))
    refused(path, "after its end")


def test_archives_in_archives_are_not_opened(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"train/sad/1.png": bytes(50 << 20)}).read_bytes()
    refused(write_zip(tmp_path / "outer.zip", {"inner.zip": inner, "b.zip": inner}), "no images")


def test_names_of_names_of_names_end(tmp_path: Path) -> None:
    # Each long-name header calls for another header: a reader that recurses runs out of stack.
    header = tarfile.TarInfo("x")
    header.type = b"L"
    header.size = 1
    path = tmp_path / "deep.tar"
    path.write_bytes((header.tobuf() + b"y".ljust(512, b"\0")) * 5000)
    refused(path, "damaged")


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
def test_a_tar_of_negative_sizes_ends(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("notes.txt")
    member.size = size
    path = tmp_path / "back.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refused(path, "no image's size|damaged")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_output_cannot_be_bounded_are_refused(tmp_path: Path, method: int) -> None:
    refused(write_zip(tmp_path / "source.zip", FILES, method), "compressed by method")


def test_an_encrypted_zip_says_to_unpack_it(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "source.zip", FILES)
    data = bytearray(path.read_bytes())
    for signature, at_flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + at_flags] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


def test_a_damaged_image_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    files = {**FILES, "train/sad/9.png": b"text", "train/sad/8.png": FACE[: len(FACE) // 2]}
    problems = {one.name: one.problem for one in read(write_zip(tmp_path / "s.zip", files))}
    assert [name for name, problem in problems.items() if problem] == [
        "train/sad/9.png", "train/sad/8.png",
    ]  # fmt: skip


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "source.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"train/sad/{kind.decode()}.png")
            member.type = kind
            member.linkname = "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("train/sad/1.png")
        member.size = len(FACE)
        archive.addfile(member, io.BytesIO(FACE))
    assert [one.name for one in read(path)] == ["train/sad/1.png"]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "no images"),
        ({"notes.txt": b""}, "no images"),
        ({"fer2013/fer2013.csv": b"emotion"}, r"fer2013/fer2013\.csv.*name the file itself"),
    ],
)
def test_an_archive_without_images_says_what_to_do(
    tmp_path: Path, files: Files, match: str
) -> None:
    refused(write_zip(tmp_path / "source.zip", files), match)
    refused(write_tar(tmp_path / "source.tar", files or {"a": b""}), match)


@pytest.mark.parametrize("content", [b"", b"\0" * 2048, b"PK", b"hello", b"\x1f\x8b\x08", b"BZh9"])
def test_what_is_no_archive_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "source.zip"
    path.write_bytes(content)
    refused(path, "neither a zip nor a tar|damaged")


@given(
    st.binary(max_size=2000)
    | st.binary(max_size=600).map(lambda tail: b"PK\3\4" + tail + b"PK\5\6" + bytes(18))
    | st.binary(max_size=1500).map(lambda tail: tarfile.TarInfo("a/b/c.png").tobuf() + tail)
    | st.binary(max_size=600).map(gzip.compress)
)
def test_any_bytes_end_in_rows_or_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "source"
    path.write_bytes(content)
    try:
        read(path)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right


@pytest.mark.shared
def test_the_real_archive_has_every_image(shared: Path) -> None:
    with zipfile.ZipFile(shared / "data" / "fer2013.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith((".png", ".jpg"))]
    images = read_archive(shared / "data" / "fer2013.zip", silent)
    some = [next(images) for _ in range(300)]
    assert len(names) == 35_887
    assert [one.name for one in some] == names[:300]
    assert all(one.problem is None and one.mode == "L" for one in some)
