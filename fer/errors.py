"""Every error this library raises on purpose.

    FerError
    ├── UsageError                 wrong usage or input: exit status 2
    │   ├── ParamsError            params.yaml: misspelt, missing, out of range
    │   ├── SettingsError          FER_* environment
    │   ├── ImageError             a picture that cannot be read, or is too large
    │   ├── VideoError             a video or camera that cannot be read, or a range outside it
    │   └── ModelReferenceError    a model reference that cannot be parsed
    ├── SourceError                a dataset source: absent, damaged, hostile, wrong digest
    │   └── UnreachableError       the network failed: another try may help
    ├── TableError                 a table file that is not what it should be
    ├── ValidationError            the data gate: an expectation was breached
    ├── WeightsError               initial weights: not reachable, not fitting
    ├── TrainingError              training cannot start or go on
    ├── GateError                  a model that does not meet the promotion gate
    ├── PackageError               a model package: incomplete, altered, hostile, too new
    ├── RegistryError              the model registry
    │   ├── NotFoundError          no such model, version or alias
    │   ├── ConflictError          somebody else was first
    │   ├── SignatureError         a package that no trusted key signed, or a key of no use
    │   └── StoreError             the store behind it: absent, read-only, wrong credentials
    │       ├── UnavailableError   unreachable for now: another try, or the cache, may help
    │       └── UnsafeStoreError   a store that ignores conditional writes
    ├── DetectorError              a face detector or its model file
    └── WorkflowError              a stage or flow that failed

Each message says what happened and what to do next. Command lines print the message, not a
traceback, and exit with `exit_code`.
"""

from __future__ import annotations


class FerError(Exception):
    """Base of every error raised on purpose."""

    exit_code: int = 1


class UsageError(FerError):
    """The call itself is wrong: a bad argument, option, setting or input."""

    exit_code = 2


class ParamsError(UsageError):
    """params.yaml does not describe a run."""


class SettingsError(UsageError):
    """An environment setting has no usable value."""


class ImageError(UsageError):
    """A picture cannot be decoded, or is larger than the stated limit."""


class VideoError(UsageError):
    """A video or camera cannot be opened or decoded, or the time range lies outside it."""


class ModelReferenceError(UsageError):
    """A model reference is neither `name`, `name@alias`, `name:version` nor a path."""


class SourceError(FerError):
    """A dataset source is absent, damaged, hostile, or not the one that was named."""

    exit_code = 2


class UnreachableError(SourceError):
    """A dataset source did not answer or broke off; another try may help."""

    exit_code = 1  # workflows retry a fetch that ends with 1, never one that ends with 2


class TableError(FerError):
    """A table file lacks a column, a row, or the schema version this code reads."""


class ValidationError(FerError):
    """The data gate found a breach; the workflow stops here."""


class WeightsError(FerError):
    """Initial weights cannot be had, or do not fit the network."""


class TrainingError(FerError):
    """Training cannot start or go on."""


class GateError(FerError):
    """A model does not meet the promotion gate."""


class PackageError(FerError):
    """A model package is incomplete, altered, hostile, or of a newer schema."""


class RegistryError(FerError):
    """The registry cannot do what was asked."""


class NotFoundError(RegistryError):
    """No such model, version or alias."""


class ConflictError(RegistryError):
    """Another writer was first."""


class SignatureError(RegistryError):
    """No trusted key signed a package, a signature does not hold, or a key cannot be used."""


class StoreError(RegistryError):
    """The store is absent, read-only, unreachable, or refuses the credentials."""


class UnavailableError(StoreError):
    """The store cannot be reached for now; another try, or the cache, may help."""


class UnsafeStoreError(StoreError):
    """The store ignores conditional writes, so several writers would lose updates."""


class DetectorError(FerError):
    """A face detector cannot be loaded or run."""


class WorkflowError(FerError):
    """A stage or flow failed."""
