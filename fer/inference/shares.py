"""Work in shares of about equal bytes, each small enough to be lost and done again."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fer.errors import UsageError
from fer.inference.inputs import PictureFile

SMALLEST: Final = 32 << 10
"""What a picture counts at least, in bytes: a request and a decoding, however small the file."""


@dataclass(frozen=True)
class Share:
    """Pictures that one worker analyses in one go and writes as one part, in listing order."""

    pictures: tuple[PictureFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(picture.size for picture in self.pictures)

    def pack(self) -> bytes:
        """The share as bytes, for another process: columns of plain values, compressed."""
        columns = [[getattr(one, name) for one in self.pictures] for name in _COLUMNS]
        return zlib.compress(json.dumps(columns, separators=(",", ":")).encode())

    @classmethod
    def unpack(cls, data: bytes) -> Share:
        """What `pack` packed."""
        columns = json.loads(zlib.decompress(data))
        return cls(
            tuple(
                PictureFile(**dict(zip(_COLUMNS, values, strict=True)))
                for values in zip(*columns, strict=True)
            )
        )


_COLUMNS = ("uri", "etag", "size", "key")


def weight(picture: PictureFile) -> int:
    """What a picture counts towards a share's target, in bytes."""
    return max(picture.size, SMALLEST)


def split(pictures: Iterable[PictureFile], target: int) -> Iterator[Share]:
    """Shares of up to `target` bytes, in order; a larger picture is a share of its own.

    Takes from `pictures` only what the next share needs and one more, so a listing of any length
    is never held whole.

    Args:
        pictures: in the order of the listing.
        target: bytes; a picture counts `SMALLEST` at least.

    Raises:
        UsageError: the target is not positive.
    """
    if target < 1:
        raise UsageError(f"A share has {target} bytes; it must have at least 1.")
    return _split(pictures, target)


def _split(pictures: Iterable[PictureFile], target: int) -> Iterator[Share]:
    share: list[PictureFile] = []
    taken = 0
    for picture in pictures:
        if share and taken + weight(picture) > target:
            yield Share(tuple(share))
            share, taken = [], 0
        share.append(picture)
        taken += weight(picture)
    if share:
        yield Share(tuple(share))
