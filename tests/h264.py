"""H.264 written without an encoder: pictures of uncompressed macroblocks, in order or not.

Each picture is one grey level. Bidirectional pictures are stood in for by intra pictures that
nothing refers to and that are sent after the next one shown, so a decoder must reorder.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 64, 48
TICKS = 12800  # a second, in the time scale of `write_mp4`
START = b"\0\0\0\1"


@dataclass(frozen=True)
class Sample:
    """One picture as it is sent: its place among those shown, whether a decoder may begin at it,
    and its NAL unit."""

    shown: int
    key: bool
    unit: bytes


class _Bits:
    """Bits in a row; `ue` writes Exp-Golomb codes (ITU-T H.264, 9.1)."""

    def __init__(self) -> None:
        self.text = ""

    def u(self, value: int, size: int) -> _Bits:
        self.text += f"{value:0{size}b}"
        return self

    def ue(self, *values: int) -> _Bits:
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code
        return self

    def align(self) -> _Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def ended(self) -> bytes:
        self.text += "1"
        return self.align().raw()

    def raw(self) -> bytes:
        return int(self.text, 2).to_bytes(len(self.text) // 8, "big")


def _unit(header: int, body: bytes) -> bytes:
    """A NAL unit, with what looks like a start code in it escaped."""
    escaped, zeros = bytearray(), 0
    for byte in body:
        if zeros == 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes([header]) + bytes(escaped)


def heads(reorder: int) -> tuple[bytes, bytes]:
    """Sequence and picture parameters: Main profile, up to `reorder` pictures out of order."""
    sps = _Bits().u(77, 8).u(0, 8).u(10, 8).ue(0, 4, 0, 4, max(1, reorder)).u(0, 1)
    sps.ue(WIDTH // 16 - 1, HEIGHT // 16 - 1).u(0b1101, 4)  # frames; no cropping; VUI follows
    sps.u(0, 8).u(0b11, 2).ue(0, 0, 0, 0, reorder, max(1, reorder))
    pps = _Bits().ue(0, 0).u(0, 2).ue(0, 0, 0).u(0, 3).ue(0, 0, 0).u(0b100, 3)
    return _unit(0x67, sps.ended()), _unit(0x68, pps.ended())


def _picture(level: int, number: int, order: int, *, idr: bool, kept: bool) -> bytes:
    bits = _Bits().ue(0, 7, 0).u(number % 256, 8)
    if idr:
        bits.ue(order % 2)
    bits.u(2 * order % 256, 8)
    if kept:
        bits.u(0, 2 if idr else 1)
    bits.ue(0, 1)
    # Every macroblock is I_PCM: 256 bytes of luma, 128 of chroma.
    luma = round(16 + level * 219 / 255)
    block = bytes([luma]) * 256 + bytes([128]) * 128
    data = bits.ue(25).align().raw() + block
    following = _Bits().ue(25).align().raw() + block
    data += following * (WIDTH * HEIGHT // 256 - 1) + b"\x80"
    return _unit((0x60 if kept else 0) | (5 if idr else 1), data)


def samples(levels: Sequence[int], every: int = 12, reorder: bool = False) -> list[Sample]:
    """Pictures of these grey levels, with a key frame at every so many.

    With `reorder` each pair after the first picture is sent the other way round.
    """
    made, since, number = [], 0, 0
    order = list(range(len(levels)))
    if reorder:
        for place in range(1, len(levels) - 1, 2):
            if (place + 1) % every and place % every:
                order[place], order[place + 1] = place + 1, place
    for shown in order:
        key = shown % every == 0
        if key:
            since, number = shown, 0
        kept = not (reorder and order[shown] != shown and order.index(shown) > shown)
        unit = _picture(levels[shown], number, shown - since, idr=key, kept=kept)
        number += kept
        made.append(Sample(shown, key, unit))
    return made


def write_raw(path: Path, pictures: Sequence[Sample], reorder: int = 0) -> Path:
    """A stream without a container, and so without times."""
    units = [*heads(reorder), *(one.unit for one in pictures)]
    path.write_bytes(b"".join(START + one for one in units))
    return path


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def _full(name: bytes, *numbers: int) -> bytes:
    return _box(name, bytes(4), struct.pack(f">{len(numbers)}i", *numbers))


def write_mp4(
    path: Path,
    pictures: Sequence[Sample],
    durations: Sequence[int] | None = None,
    edits: Sequence[tuple[int, int]] = (),
    reorder: int = 0,
) -> Path:
    """An .mp4 of pictures sent in this order.

    Args:
        durations: ticks that each picture is shown; None is 512 each, 25 a second.
        edits: an edit list: length and where it begins in the track, both in ticks.
        reorder: how many pictures may be out of order.
    """
    count = len(pictures)
    shown = list(durations or [512] * count)
    sent = [sum(shown[:place]) for place in range(count)]
    delays = [sent[one.shown] - sent[place] for place, one in enumerate(pictures)]
    delay = -min(delays)
    sps, pps = heads(reorder)
    config = b"\1" + sps[1:4] + b"\xff\xe1" + struct.pack(">H", len(sps)) + sps
    config += b"\1" + struct.pack(">H", len(pps)) + pps
    entry = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", WIDTH, HEIGHT)
    entry += struct.pack(">IIIH", 72 << 16, 72 << 16, 0, 1) + bytes(32) + b"\0\x18\xff\xff"
    data = [struct.pack(">I", len(one.unit)) + one.unit for one in pictures]
    head = _box(b"ftyp", b"isom", bytes(4), b"isom")
    keys = [place + 1 for place, one in enumerate(pictures) if one.key]
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    total = sum(shown)
    table = _box(
        b"stbl",
        _box(b"stsd", bytes(4), struct.pack(">I", 1), _box(b"avc1", entry, _box(b"avcC", config))),
        _full(b"stts", count, *(number for one in shown for number in (1, one))),
        _full(b"ctts", count, *(number for one in delays for number in (1, one + delay))),
        _full(b"stss", len(keys), *keys),
        _full(b"stsc", 1, 1, count, 1),
        _full(b"stsz", 0, count, *map(len, data)),
        _full(b"stco", 1, len(head) + 8),
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", 0, 0, TICKS, total, 0x55C40000),
        _box(b"hdlr", bytes(8), b"vide", bytes(13)),
        _box(b"minf", _full(b"vmhd", 0, 0), table),
    )
    track = _box(b"tkhd", b"\0\0\0\3", struct.pack(">5I", 0, 0, 1, 0, total), bytes(16), matrix,
                 struct.pack(">II", WIDTH << 16, HEIGHT << 16))  # fmt: skip
    listed = [number for one in edits for number in (*one, 1 << 16)]
    edit = _box(b"edts", _full(b"elst", len(edits), *listed)) if edits else b""
    movie = _box(b"mvhd", bytes(12), struct.pack(">IIIHH", TICKS, total, 1 << 16, 256, 0), bytes(8),
                 matrix, bytes(24), struct.pack(">I", 2))  # fmt: skip
    moov = _box(b"moov", movie, _box(b"trak", track, edit, media))
    path.write_bytes(head + _box(b"mdat", *data) + moov)
    return path


def write_avi(path: Path, pictures: Sequence[Sample], fps: int = 25, reorder: int = 0) -> Path:
    """An .avi of pictures sent in this order; the container has no times of showing."""

    def chunk(name: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    count = len(pictures)
    lead = b"".join(START + one for one in heads(reorder))
    data = [START + one.unit for one in pictures]
    data[0] = lead + data[0]
    main = struct.pack(
        "<14I", 1000000 // fps, 0, 0, 0x10, count, 0, 1, 0, WIDTH, HEIGHT, 0, 0, 0, 0
    )
    stream = (
        b"vidsH264" + struct.pack("<10I", 0, 0, 0, 1, fps, 0, count, 0, 0xFFFFFFFF, 0) + bytes(8)
    )
    picture = struct.pack("<IiiHH4s5I", 40, WIDTH, HEIGHT, 1, 24, b"H264", 0, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl", chunk(b"strh", stream), chunk(b"strf", picture))
    header = chunk(b"LIST", b"hdrl", chunk(b"avih", main), streams)
    index, place = b"", 4
    for one, body in zip(pictures, data, strict=True):
        index += b"00dc" + struct.pack("<III", 0x10 if one.key else 0, place, len(body))
        place += 8 + len(body) + len(body) % 2
    movie = chunk(b"LIST", b"movi", *(chunk(b"00dc", body) for body in data))
    path.write_bytes(chunk(b"RIFF", b"AVI ", header, movie, chunk(b"idx1", index)))
    return path
