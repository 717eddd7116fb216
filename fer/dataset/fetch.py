"""Stage fetch: one source, whatever its kind, becomes the source table."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from fer.dataset.sources.archive import read_archive
from fer.dataset.sources.competition import read_competition
from fer.dataset.sources.folder import read_folder
from fer.dataset.table import SourceImage, write_source
from fer.errors import SourceError
from fer.files import atomic_paths, sha256_of, write_json
from fer.params import DataParams
from fer.progress import Progress
from fer.settings import settings

MAX_PIXELS: Final = 1 << 30
"""All images together: FER2013 has 83 million."""


def fetch(params: DataParams, seed: int, out: Path) -> dict[str, Any]:
    """Read the source and write `images.parquet`, `ferplus.parquet` and `source.json` to `out`.

    FER_DATA, where set, is read instead of downloading the source that params name: it is a
    local copy of the same dataset. The three files are written together or not at all, so a
    repeat after a break needs no cleaning up.

    Args:
        params: section `data`.
        seed: of the synthetic faces.
        out: folder, made if absent.

    Returns:
        The content of source.json.

    Raises:
        SourceError: absent, damaged, hostile, or not the one that was named.
        UnreachableError: the network failed; another try may help.
    """
    with Progress("Reading the source") as progress:
        kind, images = _images(params, seed, progress)
        rows = sorted(_bounded(images), key=lambda image: image.name)
    if not rows:
        raise SourceError("The source holds no image. Check that it is FER2013 and not empty.")
    votes = _votes([row.name for row in rows])
    targets = (out / "images.parquet", out / "ferplus.parquet", out / "source.json")
    with atomic_paths(*targets) as (table_file, votes_file, facts_file):
        import pyarrow.parquet as pq

        facts = {
            "kind": kind,
            "images": write_source(table_file, rows),
            "unreadable": sum(row.pixels is None for row in rows),
            "splits": dict(Counter(row.split for row in rows)),
            "sha256": sha256_of(table_file),
        }
        pq.write_table(votes, votes_file)
        write_json(facts_file, facts)
    return facts


def _images(params: DataParams, seed: int, progress: Progress) -> tuple[str, Iterable[SourceImage]]:
    """What kind of source it is, and its images."""
    if params.source == "synthetic":
        from fer.dataset.synthetic import synthetic_dataset

        return "synthetic", synthetic_dataset(
            params.synthetic.images_per_class, params.synthetic.duplicates, seed
        )
    local = _local(params, progress)
    if local.is_dir():
        if params.sha256 is not None:
            raise SourceError(
                f"data.sha256 is that of a file, but {local} is a folder. Name the archive, or "
                "set data.sha256 to null."
            )
        return "folder", read_folder(local, progress.update)
    if params.sha256 is not None and (found := sha256_of(local)) != params.sha256:
        raise SourceError(
            f"{local} has sha256 {found}, but data.sha256 is {params.sha256}. Fetch it again, or "
            "correct data.sha256."
        )
    if local.suffix.lower() == ".csv":
        return "competition", read_competition(local, progress.update)
    return "archive", read_archive(local, progress.update)


def _local(params: DataParams, progress: Progress) -> Path:
    """The source as a local file or folder, downloaded if need be."""
    source, copy = params.source, settings().data
    if copy is None and source == "kaggle":
        from fer.dataset.sources.kaggle import kaggle_folder

        return kaggle_folder(params.handle)
    if copy is None and "://" in source:
        from fer.dataset.sources.remote import download

        progress.start("Downloading the source")
        local = download(source, params.sha256, progress.update)
        progress.start("Reading the source")
        return local
    local = Path(source).expanduser() if copy is None else copy
    if local.is_dir() or local.is_file():
        return local
    what = "is neither a file nor a folder" if local.exists() else "does not exist"
    if copy is not None:
        raise SourceError(
            f"FER_DATA names {local}, which {what}. Name a FER2013 archive, folder or CSV, or "
            "unset it to use data.source."
        )
    nearest = difflib.get_close_matches(source.lower(), ["kaggle", "synthetic"], n=1)
    meant = f"; did you mean {nearest[0]}?" if nearest else "."
    raise SourceError(
        f"data.source names {source}, which {what}{meant} It may be kaggle, synthetic, a FER2013 "
        "archive, folder or CSV, or an s3:// or https:// address."
    )


def _bounded(images: Iterable[SourceImage]) -> Iterator[SourceImage]:
    """The images as they are, as long as they fit in memory: a small file may hold large ones."""
    total = 0
    for image in images:
        total += 0 if image.pixels is None else image.pixels.size
        if total > MAX_PIXELS:
            raise SourceError(
                f"The source's images have over {MAX_PIXELS:,} pixels together; FER2013's have "
                "83 million. Scale them to 48x48 px."
            )
        yield image


def _votes(names: list[str]) -> Any:
    """FER+ votes for the images, where FER_FERPLUS names them; else an empty table."""
    from fer.evaluation.ferplus import no_votes, read_votes

    votes = settings().ferplus
    return read_votes(votes, names) if votes else no_votes()
