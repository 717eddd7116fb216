"""Any picture file as upright grey (and, if asked, RGB) pixels, in bounded memory."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Pixels = NDArray[np.uint8]

# Raster formats that Pillow decodes by itself. EPS and the like would start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
KEEP_SIDE = 3200
"""Longest side kept after reading, px: twice what detectors look at, so that crops stay sharp."""

_ORIENTATION = 0x0112  # the EXIF tag
# A picture above this is decoded while no other large one is: threads share the memory.
_LARGE = 16_000_000
_one_large = threading.Lock()
_opening = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        grey: uint8 (h, w), ITU-R 601 luma.
        rgb: uint8 (h, w, 3), or None where colour was not asked for.
        width: of the picture as it is shown, px, before any reduction.
        height: the same.
        reduction: original pixels per pixel of `grey`; 1.0 where nothing was reduced.
        format: what the file is, whatever its name says ("JPEG").
    """

    grey: Pixels
    rgb: Pixels | None
    width: int
    height: int
    reduction: float
    format: str


def read_image(
    source: bytes | str | Path,
    *,
    max_megapixels: float = 150.0,
    keep_side: int = KEEP_SIDE,
    colour: bool = False,
    name: str = "The picture",
) -> Picture:
    """Decode one picture: JPEG (also CMYK), PNG (also 16-bit), WebP, TIFF, BMP, GIF, PPM, AVIF.

    EXIF orientation is applied, transparency is laid over white, 16-bit levels are divided by
    257, of an animation the first frame is read. The size is checked in the header, before
    anything is decoded. Pictures with a longer side than `keep_side` are reduced by a whole
    factor, JPEGs while they are decoded.

    Args:
        source: the file's bytes, or its path.
        max_megapixels: larger pictures are refused.
        keep_side: the reduced picture's longer side is at least this, and less than twice it.
        colour: fill `rgb` too.
        name: what messages call the picture.

    Raises:
        ImageError: empty, no picture, truncated or damaged, or too large; the message says which.

    Example:
        >>> read_image(b"not a picture")
        Traceback (most recent call last):
        fer.errors.ImageError: The picture is not an image but text. ...
    """
    try:
        return _read(_bytes_of(source), max_megapixels, keep_side, colour)
    except ImageError as error:
        raise ImageError(f"{name} {error}") from None


def _read(data: bytes, max_megapixels: float, keep_side: int, colour: bool) -> Picture:
    if not data:
        raise ImageError("is empty (0 bytes). Copy or export the picture again.")
    image = _open(data)
    with image:
        kind = str(image.format)
        width, height = image.size
        if width < 1 or height < 1:
            raise ImageError(f"claims a size of {width}x{height}. Export the picture again.")
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                f"has {width}x{height} pixels ({width * height / 1e6:.0f} megapixels), above the "
                f"limit of {max_megapixels:g}. Scale it down, or raise faces.max_megapixels."
            )
        large = width * height > _LARGE
        try:
            if large:
                _one_large.acquire()
            turn = _orientation(image)
            pixels = _decode(image, keep_side, colour)
        except ImageError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged data
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(
                f"is a damaged or truncated {kind}: {reason}. Copy or export the picture again."
            ) from None
        finally:
            if large:
                _one_large.release()
    reduction = width / pixels.shape[1]
    pixels = _upright(pixels, turn)
    if turn >= 5:
        width, height = height, width
    if pixels.ndim == 2:
        rgb = np.repeat(pixels[:, :, None], 3, axis=2) if colour else None
        return Picture(pixels, rgb, width, height, reduction, kind)
    return Picture(_luma(pixels), pixels, width, height, reduction, kind)


def from_array(array: NDArray[Any], *, colour: bool = False) -> Picture:
    """A picture that is already in memory.

    Args:
        array: uint8, (h, w) or (h, w, 1) grey, (h, w, 3) RGB or (h, w, 4) RGBA. OpenCV's
            arrays are BGR: reverse their last axis first.
        colour: fill `rgb` too.

    Raises:
        ImageError: another type or shape, or no pixels.
    """
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not shape_fits or array.size == 0:
        raise ImageError(
            f"A picture in memory is uint8 of shape (h, w), (h, w, 3) or (h, w, 4), "
            f"not {array.dtype} {array.shape}. Scale it to 0..255 and convert with astype('uint8')."
        )
    height, width = array.shape[:2]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        blended = array[:, :, :3] * alpha + 255 * (255 - alpha)
        array = ((blended + 127) // 255).astype(np.uint8)
    if array.ndim == 2:
        rgb = np.repeat(array[:, :, None], 3, axis=2) if colour else None
        return Picture(array, rgb, width, height, 1.0, "array")
    return Picture(_luma(array), array if colour else None, width, height, 1.0, "array")


def _luma(rgb: Pixels) -> Pixels:
    """Pillow's grey, as files get: the same pixels give the same answer either way."""
    from PIL import Image

    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def _bytes_of(source: bytes | str | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except FileNotFoundError:
        raise ImageError("does not exist. Check the path.") from None
    except IsADirectoryError:
        raise ImageError("is a folder; `fer batch` reads folders.") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}.") from None


def _open(data: bytes) -> PillowImage:
    """Parse the header only."""
    import warnings

    from PIL import Image, UnidentifiedImageError

    # Pillow's own limit is lower than ours and warns rather than refuses. It is a module
    # attribute, so it is lifted for the moment of opening, by one thread at a time.
    # Its warnings of odd metadata go too: they are no news, or the decoder will raise.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError(
                f"is not an image{_what(data)}. Readable: {', '.join(FORMATS)}."
            ) from None
        except Exception as error:  # decoders raise nearly anything on damaged data
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"has a damaged header: {reason}. Export the picture again.") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _what(data: bytes) -> str:
    """What the bytes look like instead, for the message."""
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return " this can read but HEIC: convert it to JPEG"
    if data[:4] == b"%PDF":
        return " but a PDF"
    try:
        head = data[:512].decode("utf-8").strip()
    except UnicodeDecodeError:
        return ", or its header is cut off"
    if not all(letter.isprintable() or letter.isspace() for letter in head):
        return ", or its header is cut off"
    return " but markup (HTML, XML or SVG)" if head.startswith("<") else " but text"


def _orientation(image: PillowImage) -> int:
    """EXIF orientation 1..8; 1 where there is none or its block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode(image: PillowImage, keep_side: int, colour: bool) -> Pixels:
    """Pixels as stored (not yet upright): grey (h, w), or RGB (h, w, 3)."""
    width, height = image.size
    factor = max(1, max(width, height) // max(1, keep_side))
    wanted = (max(1, width // factor), max(1, height // factor))
    # Only JPEG answers: it decodes at 1/2, 1/4 or 1/8, and skips the colours for grey.
    image.draft("RGB" if colour else "L", wanted)
    image.load()
    factor = max(1, max(image.size) // max(1, keep_side))
    if image.mode.startswith(("I", "F")):
        deep = _sixteen_bits(image)
        from PIL import Image

        image = Image.fromarray(deep)
    if factor > 1 and image.mode not in ("P", "1", "PA"):
        image = image.reduce(factor)
        factor = 1
    if image.has_transparency_data:
        image = _over_white(image)
    image = image.convert("RGB" if colour and image.mode not in ("L", "1") else "L")
    if factor > 1:  # palettes cannot be averaged before they are looked up
        image = image.reduce(factor)
    return np.array(image, dtype=np.uint8)


def _sixteen_bits(image: PillowImage) -> Pixels:
    """Deep grey levels as 8 bits."""
    if image.mode == "F":
        raise ImageError(
            "has floating-point pixels, whose black and white are not stated. Save it with 8 or "
            "16 bits per level."
        )
    levels = np.asarray(image).astype(np.int64)
    # 65535 / 255 = 257 exactly, so white stays white.
    return ((np.clip(levels, 0, 65535) + 128) // 257).astype(np.uint8)


def _over_white(image: PillowImage) -> PillowImage:
    """Colours under full transparency are arbitrary; viewers show them over white."""
    from PIL import Image

    image = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, image).convert("RGB")


def _upright(pixels: Pixels, turn: int) -> Pixels:
    """Undo EXIF orientation `turn`; (h, w) or (h, w, 3)."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    # Which axes are mirrored, after the swap: Exif 2.32, tag 274.
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
