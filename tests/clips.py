"""Video files whose content is known: drawn people who move, and containers that are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.expressions import Expression
from fer.faces.detector import Detection

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Person:
    """A drawn person: BGR pixels, and where the face is in them."""

    pixels: Pixels
    face: Detection


@cache
def person(seed: int, expression: Expression = Expression.NEUTRAL) -> Person:
    """A person some 170 px wide whose face the default detector finds."""
    from fer.dataset.scenes import draw_scene

    rng = np.random.default_rng(seed)
    picture, ((left, top, right, bottom),) = draw_scene([expression], rng, 200, 220)
    return Person(picture, Detection(left, top, right, bottom, 1.0))


def paste(frame: Pixels, who: Person, left: int, top: int, light: float = 1.0) -> Detection:
    """Put a person into a frame at `left`, `top`, cut off at its edges; where the face then is."""
    height, width = who.pixels.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(frame.shape[1], left + width), min(frame.shape[0], top + height)
    if x1 > x0 and y1 > y0:
        part = who.pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        frame[y0:y1, x0:x1] = np.clip(part * light, 0, 255).astype(np.uint8)
    face = who.face
    return Detection(face.left + left, face.top + top, face.right + left, face.bottom + top, 1.0)


def wall(width: int, height: int, seed: int = 0) -> Pixels:
    """A background with soft things in it and no face, BGR."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 190, (height // 40 + 1, width // 40 + 1, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write(path: Path, frames: Sequence[Pixels], fps: float = 30.0, codec: str = "mp4v") -> Path:
    """Encode frames, BGR, with OpenCV."""
    import cv2

    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def set_durations(path: Path, durations: Sequence[int]) -> Path:
    """Give each frame of an .mp4 a duration of its own, in the track's time scale."""
    data = path.read_bytes()
    body = struct.pack(">I", 0) + struct.pack(">I", len(durations))
    body += b"".join(struct.pack(">II", 1, one) for one in durations)

    def replace(_: bytes) -> bytes:
        return body

    # The edit list still has the old length, and would cut the longer video off.
    data = data.replace(b"edts", b"free")
    path.write_bytes(_edit(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"), replace))
    return path


def rotate(path: Path) -> Path:
    """Say in an .mp4's header that it is to be shown turned by 90 degrees clockwise."""

    def turned(header: bytes) -> bytes:
        matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        return header[:40] + matrix + header[76:]

    path.write_bytes(_edit(path.read_bytes(), (b"moov", b"trak", b"tkhd"), turned))
    return path


def blank_frame(path: Path, number: int) -> Path:
    """Overwrite one frame of a Motion JPEG .avi with zeros."""
    data = bytearray(path.read_bytes())
    place = data.index(b"movi")
    for _ in range(number + 1):
        place = data.index(b"00dc", place + 1)
    (size,) = struct.unpack("<I", data[place + 4 : place + 8])
    data[place + 8 : place + 8 + size] = bytes(size)
    path.write_bytes(data)
    return path


def _edit(data: bytes, names: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """An MP4 with the body of one box changed, and the sizes of the boxes around it."""
    done, place = b"", 0
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        size = size or len(data) - place
        name, body = data[place + 4 : place + 8], data[place + 8 : place + size]
        if size == 1:  # a 64-bit size, as OpenCV's mdat may have
            (size,) = struct.unpack(">Q", data[place + 8 : place + 16])
            done += data[place : place + size]
            place += size
            continue
        if name == names[0]:
            body = _edit(body, names[1:], change) if names[1:] else change(body)
        done += struct.pack(">I", len(body) + 8) + name + body
        place += size
    return done
