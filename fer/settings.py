"""Where and how things run: the FER_* environment variables.

What defines a result is in params.yaml (see `fer.params`), never here. S3 credentials,
region and profile are boto3's own `AWS_*` variables.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fer.errors import SettingsError

# `~` is the shell's, and no shell reads a service's environment file.
_Path = Annotated[
    Path, AfterValidator(lambda path: path.expanduser() if "~" in path.parts else path)
]


def _listed(paths: Any) -> Any:
    """As PATH lists folders."""
    return paths.split(os.pathsep) if isinstance(paths, str) else paths


def _web_address(address: SecretStr) -> SecretStr:
    # The message must not hold the address: whoever knows a webhook's may call it.
    if not address.get_secret_value().startswith(("https://", "http://")):
        raise ValueError("it must begin with https:// or http://")
    return address


def _cache() -> Path:
    try:
        return Path.home() / ".cache" / "fer"
    except RuntimeError:  # a container's user may have no home
        return Path(tempfile.gettempdir()) / "fer-cache"


class Settings(BaseSettings):
    """One field per variable: `data` is FER_DATA, and so on."""

    model_config = SettingsConfigDict(env_prefix="FER_", extra="ignore", env_ignore_empty=True)

    data: _Path | None = Field(default=None, description="Local FER2013 archive, folder or CSV.")
    ferplus: _Path | None = Field(
        default=None, description="FER+ votes: fer2013new.csv, or joined by name."
    )
    weights: _Path | None = Field(
        default=None, description="Initial EfficientNetB2 weights (.weights.h5)."
    )
    registry: str | None = Field(
        default=None, description="Model registry: a folder or s3://bucket/prefix."
    )
    s3_endpoint: str | None = Field(
        default=None, description="Endpoint URL of an S3-compatible server."
    )
    s3_addressing: str = Field(default="auto", description="auto, path or virtual.")
    s3_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None,
        description="Server-side encryption that every write asks for; the bucket's default "
        "needs no setting.",
    )
    s3_kms_key: str | None = Field(
        default=None, description="KMS key of aws:kms; the account's own where not given."
    )
    single_writer: bool = Field(
        default=False,
        description="Only one process ever writes to the registry: take a store that ignores "
        "conditional writes.",
    )
    cache: _Path = Field(
        default_factory=_cache, description="Downloads and pulled models are kept here."
    )
    cache_limit: ByteSize | None = Field(
        default=None, description="Most that pulled models may take on the disk, such as 5GB."
    )
    offline: bool = Field(default=False, description="Use only what is cached; touch no network.")
    trusted_keys: Annotated[tuple[_Path, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="Public keys (PEM files, listed like PATH): pull only what one of them signed.",
    )
    signing_password: SecretStr | None = Field(
        default=None, description="Of the private key that `fer models sign` is given."
    )
    yunet: _Path | None = Field(
        default=None, description="YuNet's ONNX file, for faces.detector opencv-yunet."
    )
    mmod: _Path | None = Field(
        default=None,
        description="dlib's mmod_human_face_detector.dat, for faces.detector dlib-mmod.",
    )
    landmarks: _Path | None = Field(
        default=None,
        description="dlib's shape_predictor_5_face_landmarks.dat, for poses and faces.align.",
    )
    batch_input: str | None = Field(
        default=None,
        description="Photographs of scheduled batch runs: a folder or s3://bucket/prefix.",
    )
    batch_output: str | None = Field(
        default=None,
        description="Where scheduled batch runs write: a folder or s3://bucket/prefix.",
    )
    dask_scheduler: str | None = Field(
        default=None,
        description="Dask scheduler whose workers share batch runs and the gate's evaluations out, "
        "such as tls://host:8786.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads for inference.")
    notify_url: Annotated[SecretStr, AfterValidator(_web_address)] | None = Field(
        default=None,
        description="Webhook that is told of failed and late runs and of pools without a worker.",
    )
    commit: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{7,64}(-dirty)?$",
        description="Commit that this code is of, where there is no git to ask.",
    )


def settings() -> Settings:
    """The settings as the environment has them now.

    Raises:
        SettingsError: a variable has no usable value; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "FER_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{variable}: {first['msg']}. Correct it or unset it.") from None
