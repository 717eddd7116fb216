"""What is wrong with a file from which no frame can be had, as far as its bytes tell."""

from __future__ import annotations

from pathlib import Path

from fer.errors import VideoError
from fer.inference.mp4_boxes import has_whole_index, kinds

_HEAD = 1 << 16


def refuse(path: Path) -> None:
    """Refuse what is no file to read.

    Raises:
        VideoError: an address, absent, a folder, empty or locked.
    """
    if str(path).startswith(("s3:/", "http:/", "https:/", "rtsp:/")):
        raise VideoError(
            f"{path} is no local file. Copy it to a disk first; `fer live` takes streams."
        )
    if not path.exists():
        raise VideoError(f"There is no {path}. Name a video file.")
    if not path.is_file():
        raise VideoError(f"{path} is no file. Name video files one by one.")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes). Copy or record it again.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}.") from None


def why_not(path: Path) -> str:
    """Why no frame can be had."""
    if _head(path)[4:8] == b"ftyp" and not has_whole_index(path):
        return (
            f"{path} is truncated: its index (moov), which is written last, is missing or cut "
            "off. Copy it again, or repair it with a tool such as untrunc."
        )
    if is_sound(path):
        return f"{path} holds sound but no video. Name the file with the pictures."
    return (
        f"{path} holds no video that this OpenCV can decode: it is damaged, no video, or of a "
        "codec that is not built in. Play it elsewhere; if it plays, convert it: "
        "ffmpeg -i IN -c:v libx264 OUT.mp4"
    )


def is_sound(path: Path) -> bool:
    """Whether a file is of sound alone; it may have a picture for a cover."""
    head = _head(path)
    if head[4:8] == b"ftyp":
        found = kinds(path)
        return b"soun" in found and b"vide" not in found
    return (
        (head[:4] == b"RIFF" and head[8:12] == b"WAVE")
        or head[:3] == b"ID3"
        or (head[:4] in (b"fLaC", b"OggS") and b"theora" not in head)
        or (head[:1] == b"\xff" and head[1:2] >= b"\xe0" and head[:3] != b"\xff\xd8\xff")
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
