"""What `make up` keeps, in a folder of files: the database's dump, and every object of the bucket.

    <folder>/prefect.dump       pg_dump's custom format: runs, schedules, blocks, automations
    <folder>/objects/<key>      photographs, results, registry, DVC's remote if it is there
    <folder>/backup.json        when it was made, how much it holds, in what parts large objects
                                were uploaded; written last

The dump holds the key that encrypts blocks, and so the webhook's address: keep it like a password.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fer.errors import WorkflowError
from fer.files import write_json
from flows.local.postgres import Postgres
from flows.local.seaweed import Seaweed, client

DUMP: Final = "prefect.dump"
OBJECTS: Final = "objects"
NOTE: Final = "backup.json"
# Deleted since it was listed, such as the mark of a registration that has ended.
_GONE: Final = {"404", "NoSuchKey"}


def back_up(postgres: Postgres, s3: Seaweed, bucket: str, folder: Path) -> dict[str, Any]:
    """Write a backup while everything runs.

    The database first: a run that ends meanwhile has its results in the bucket, and is at worst
    repeated, which does nothing twice.

    Returns:
        what backup.json says.

    Raises:
        WorkflowError: the folder is not empty, or a service does not answer.
    """
    from botocore.exceptions import ClientError

    if folder.exists() and any(folder.iterdir()):
        raise WorkflowError(f"{folder} is not empty. Name a new folder for each backup.")
    (folder / OBJECTS).mkdir(parents=True)
    folder.chmod(0o700)
    began = datetime.now(UTC)
    postgres.dump(folder / DUMP)
    asking = _client(s3)
    count = size = 0
    parts: dict[str, int] = {}
    for page in asking.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for one in page.get("Contents", ()):
            path = _inside(folder / OBJECTS, one["Key"])
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                asking.download_file(bucket, one["Key"], str(path))
                if "-" in one["ETag"]:  # uploaded in parts, of which the ETag is made
                    first = asking.head_object(Bucket=bucket, Key=one["Key"], PartNumber=1)
                    parts[one["Key"]] = first["ContentLength"]
            except ClientError as error:
                if error.response["Error"]["Code"] not in _GONE:
                    raise
                continue
            count, size = count + 1, size + one["Size"]
    note = {
        "began_at": began.isoformat(timespec="seconds"),
        "database_bytes": (folder / DUMP).stat().st_size,
        "objects": count,
        "object_bytes": size,
        "parts": parts,
    }
    write_json(folder / NOTE, note)
    return note


def restore_database(postgres: Postgres, folder: Path) -> None:
    """Fill the empty database of a new cluster, before a Prefect server has used it.

    Raises:
        WorkflowError: this is no whole backup, or the database is in use.
    """
    _objects(folder)
    postgres.restore(folder / DUMP)


def restore_objects(s3: Seaweed, bucket: str, folder: Path) -> int:
    """Put every object back; how many. Others of the bucket stay.

    Raises:
        WorkflowError: this is no whole backup.
    """
    from boto3.s3.transfer import TransferConfig

    files, parts = _objects(folder), _note(folder).get("parts", {})
    asking = _client(s3)
    for path in files:
        key = path.relative_to(folder / OBJECTS).as_posix()
        # In one piece or in parts as it was uploaded first, so that the ETag is what it was:
        # results name pictures by it.
        if key in parts:
            cut = TransferConfig(multipart_threshold=parts[key], multipart_chunksize=parts[key])
            asking.upload_file(str(path), bucket, key, Config=cut)
        else:
            with path.open("rb") as body:
                asking.put_object(Bucket=bucket, Key=key, Body=body)
    return len(files)


def _objects(folder: Path) -> list[Path]:
    """The files of a backup's objects, all of them."""
    wanted = _note(folder)["objects"]
    files = [path for path in sorted((folder / OBJECTS).rglob("*")) if path.is_file()]
    if len(files) != wanted:
        raise WorkflowError(f"{folder} holds {len(files)} objects; its note says {wanted}.")
    return files


def _note(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        raise WorkflowError(
            f"{folder} is no whole backup: it has no {NOTE}. Name a folder that --backup has made."
        ) from None
    return document


def _inside(root: Path, key: str) -> Path:
    path = (root / key).resolve()
    if not path.is_relative_to(root.resolve()) or key.endswith("/"):
        raise WorkflowError(f"The object {key!r} cannot be a file. Copy the bucket with rclone.")
    return path


def _client(s3: Seaweed) -> Any:
    return client(s3.endpoint, s3.access_key, s3.secret_key, attempts=5)
