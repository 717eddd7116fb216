"""Stage fetch: one source, whatever its kind, becomes the source table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer.dataset.sources.archive import read_archive
from fer.dataset.sources.competition import read_competition
from fer.dataset.sources.folder import read_folder
from fer.dataset.table import SourceImage, read_source, write_source
from fer.errors import SourceError
from fer.files import sha256_of, write_json
from fer.params import DataParams
from fer.progress import Progress
from fer.settings import settings


def fetch(params: DataParams, seed: int, out: Path) -> dict[str, Any]:
    """Read the source and write `images.parquet` and `source.json` (and FER+ votes) to `out`.

    FER_DATA, where set, is read instead of downloading the source that params name: it is a
    local copy of the same dataset. Everything is written whole or not at all, so a repeat after
    a break needs no cleaning up.

    Args:
        params: section `data`.
        seed: of the synthetic faces.
        out: folder, made if absent.

    Returns:
        The content of source.json.

    Raises:
        SourceError: absent, damaged, hostile, or not the one that was named.
    """
    images = out / "images.parquet"
    with Progress("Reading the source") as progress:
        kind, rows = _rows(params, seed, progress)
        count = write_source(images, rows)
    table = read_source(images)
    facts = {
        "kind": kind,
        "images": count,
        "unreadable": count - table["pixels"].drop_null().length(),
        "splits": {
            entry["values"]: entry["counts"]
            for entry in table["split"].combine_chunks().value_counts().to_pylist()
        },
        "sha256": sha256_of(images),
    }
    _fetch_votes(out, table["name"].to_pylist())
    write_json(out / "source.json", facts)
    return facts


def _rows(params: DataParams, seed: int, progress: Progress) -> tuple[str, Iterator[SourceImage]]:
    """What kind of source it is, and its images."""
    source = params.source
    if source == "synthetic":
        from fer.dataset.synthetic import synthetic_dataset

        drawn = synthetic_dataset(
            params.synthetic.images_per_class, params.synthetic.duplicates, seed
        )
        return "synthetic", iter(drawn)
    local = settings().data
    if local is None and source == "kaggle":
        from fer.dataset.sources.kaggle import kaggle_folder

        local = kaggle_folder(params.handle)
    elif local is None and source.startswith(("https://", "s3://")):
        from fer.dataset.sources.remote import download

        local = download(source, params.sha256, progress.update)
    elif local is None and "://" in source:
        raise SourceError(f"data.source {source!r}: only https:// and s3:// can be fetched.")
    elif local is None:
        local = Path(source)
    if not local.exists():
        origin = "FER_DATA" if settings().data else "data.source"
        raise SourceError(
            f"{origin} names {local}, which does not exist. Name a FER2013 archive, folder or "
            "CSV, or unset it to download from Kaggle."
        )
    if local.is_dir():
        return "folder", read_folder(local, progress.update)
    if params.sha256 is not None and (found := sha256_of(local)) != params.sha256:
        raise SourceError(f"{local} has sha256 {found}, but data.sha256 is {params.sha256}.")
    if local.suffix.lower() == ".csv":
        return "competition", read_competition(local, progress.update)
    return "archive", read_archive(local, progress.update)


def _fetch_votes(out: Path, names: list[str]) -> None:
    """FER+ votes beside the images, where FER_FERPLUS names them; else an empty table."""
    import pyarrow.parquet as pq

    from fer.evaluation.ferplus import no_votes, read_votes
    from fer.files import atomic_path

    votes = settings().ferplus
    table = read_votes(votes, names) if votes else no_votes()
    with atomic_path(out / "ferplus.parquet") as temporary:
        pq.write_table(table, temporary)
