"""S3 artifacts and the checkpoint contract (docs/storage.md). Importing this does not import boto3."""

from pinnace.storage.artifacts import Ancestor, Artifact, Published, tokenizer_hash
from pinnace.storage.checkpoints import Checkpoint, Checkpoints, Committed, Delayed, Event, Failed, Skipped
from pinnace.storage.errors import (
    CheckpointFailed,
    Conflict,
    DamagedFile,
    DiskFull,
    Incomplete,
    InvalidName,
    NotFound,
    StorageError,
    StorageUnavailable,
)
from pinnace.storage.history import History
from pinnace.storage.settings import Patience, S3Settings
from pinnace.storage.storage import RunDirectory, Storage
from pinnace.storage.upload import CheckpointUpload
from pinnace.storage.uri import S3Uri

__all__ = [
    "Ancestor",
    "Artifact",
    "Checkpoint",
    "CheckpointFailed",
    "CheckpointUpload",
    "Checkpoints",
    "Committed",
    "Conflict",
    "DamagedFile",
    "Delayed",
    "DiskFull",
    "Event",
    "Failed",
    "History",
    "Incomplete",
    "InvalidName",
    "NotFound",
    "Patience",
    "Published",
    "RunDirectory",
    "S3Settings",
    "S3Uri",
    "Skipped",
    "Storage",
    "StorageError",
    "StorageUnavailable",
    "tokenizer_hash",
]
