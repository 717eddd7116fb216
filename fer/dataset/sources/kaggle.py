"""The Kaggle dataset msambare/fer2013, through kagglehub and its cache."""

from __future__ import annotations

from pathlib import Path

from fer.errors import SourceError


def kaggle_folder(handle: str) -> Path:
    """The local folder of a Kaggle dataset, downloaded if kagglehub has not cached it.

    Args:
        handle: `owner/dataset/versions/N`; with the version the cache works offline.

    Raises:
        SourceError: no network, or no such dataset; the message names the way out.
    """
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub raises whatever its transport does
        raise SourceError(
            f"Kaggle's {handle} cannot be had ({type(error).__name__}: {error}). With a copy at "
            "hand, set FER_DATA to the archive, folder or fer2013.csv; or set data.source to "
            "synthetic in params.yaml to try the workflow."
        ) from None
