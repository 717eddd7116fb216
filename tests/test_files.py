"""Files are written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))

from smalldisk import on_small_disk

from fer.files import (
    atomic_path,
    atomic_paths,
    json_text,
    locked,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)


def test_what_only_its_owner_may_read_is_so_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    replace = Path.replace

    def noting(self: Path, target: Path) -> Path:
        modes.append(self.stat().st_mode & 0o777)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    write_json(tmp_path / "secret", {}, mode=0o600)
    write_json(tmp_path / "public", {})
    assert modes == [0o600, 0o644]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders_appear(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file"
    write_bytes(target, b"one")
    assert target.read_bytes() == b"one"
    write_text(target, "zwei\n")
    assert target.read_text() == "zwei\n"
    assert names(target.parent) == ["file"]


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        assert temporary.parent == target.parent  # else the rename would copy
    assert target.read_bytes() == b"half"


def test_several_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    targets = [tmp_path / "a" / "one", tmp_path / "b" / "two"]
    with pytest.raises(RuntimeError), atomic_paths(*targets) as (one, two):  # noqa: PT012
        one.write_text("1")
        two.write_text("2")
        raise RuntimeError
    assert [names(target.parent) for target in targets] == [[], []]
    with atomic_paths(*targets) as (one, two):
        one.write_text("1")
        two.write_text("2")
        assert not any(target.exists() for target in targets)
    assert [target.read_text() for target in targets] == ["1", "2"]
    assert [names(target.parent) for target in targets] == [["one"], ["two"]]


def test_a_temporary_that_went_away_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file") as temporary:
        temporary.unlink()
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    code = """
import sys, time
from pathlib import Path
from fer.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from fer.files import write_bytes
target = Path(sys.argv[1]) / "out" / "file"
write_bytes(target, b"old")
try:
    write_bytes(target, bytes(1 << 20))
except OSError as error:
    print(error.errno, error.filename, target.read_bytes())
"""
    disk = tmp_path / "disk"
    done = on_small_disk(disk, "256k", [sys.executable, "-c", code, str(disk)])
    assert done.stdout.split() == [str(errno.ENOSPC), str(disk / "out"), "b'old'"], done.stderr
    assert done.left == ["out", "out/file"]


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file") as caught:
        write_bytes(tmp_path / "file" / "inside", b"")
    assert caught.value.errno in {errno.ENOTDIR, errno.EEXIST}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_json_comes_back_and_equal_content_has_equal_bytes(document: object) -> None:
    text = json_text(document)
    assert json.loads(text) == document
    assert text == json_text(json.loads(text))
    assert text.endswith("\n")


def test_json_with_other_key_order_is_the_same(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [2]})
    write_json(tmp_path / "b", {"y": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a", {"value": value})
    assert (tmp_path / "a").read_text() == "1\n"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_files_around_the_block_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_one_holder_of_a_lock_at_a_time(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with locked(tmp_path / "locks" / "one"):
            order.append("second")

    with locked(tmp_path / "locks" / "one"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
