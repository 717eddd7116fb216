"""The Kaggle dataset msambare/fer2013, through kagglehub and its cache."""

from __future__ import annotations

import contextlib
import errno
import sys
from pathlib import Path
from typing import Final

from fer.errors import SourceError, UnreachableError
from fer.settings import settings

_OF_THE_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}
_WAY_OUT: Final = (
    "With a copy at hand, set FER_DATA to the archive, folder or fer2013.csv; or set data.source "
    "to synthetic in params.yaml to try the workflow."
)


def kaggle_folder(handle: str) -> Path:
    """The local folder of a Kaggle dataset, downloaded if kagglehub has not cached it.

    Args:
        handle: `owner/dataset/versions/N`; with the version the cache works offline.

    Raises:
        SourceError: no such dataset, not for this account, or kagglehub is not installed; the
            message names the way out.
        UnreachableError: the network failed; another try may help.
        OSError: kagglehub's cache cannot be written.
    """
    # kagglehub logs to stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import kagglehub
            from kagglehub.cache import Cache
            from kagglehub.handle import parse_dataset_handle
        except ImportError:
            raise SourceError(
                "data.source is kaggle, but kagglehub is not installed: pip install "
                f"'fer-workflow[train]'. {_WAY_OUT}"
            ) from None
        try:
            if settings().offline:
                cached = Cache().load_from_cache(parse_dataset_handle(handle))
                if cached is None:
                    raise SourceError(
                        f"Kaggle's {handle} is not in kagglehub's cache and FER_OFFLINE is set. "
                        f"{_WAY_OUT}"
                    )
                return Path(cached)
            return Path(kagglehub.dataset_download(handle))
        except SourceError:
            raise
        except Exception as error:  # kagglehub raises whatever its transport does
            if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
                raise
            kind = UnreachableError if _transient(error) else SourceError
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise kind(f"Kaggle's {handle} cannot be had ({text}). {_WAY_OUT}") from None


def _transient(error: Exception) -> bool:
    """Whether the network failed, rather than the request."""
    import requests
    from kagglehub.exceptions import DataCorruptionError

    if isinstance(error, requests.HTTPError):
        status = error.response.status_code if error.response is not None else 0
        return status >= 500 or status in {408, 429}
    return isinstance(
        error,
        requests.ConnectionError
        | requests.Timeout
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError
        | DataCorruptionError,
    )
