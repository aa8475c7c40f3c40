"""Everything that can go wrong with stored data, as types. Every message says what, where and what to do."""

from __future__ import annotations


class StorageError(Exception):
    """Base of all errors of `pinnace.storage`."""


class StorageUnavailable(StorageError):
    """The object store can't be used: unreachable, wrong credentials, no bucket, no permission.

    `transient` is true where the same request may succeed later without anybody acting (network, 5xx, throttling).
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class NotFound(StorageError):
    """Nothing is stored at this address."""


class OutOfRange(NotFound):
    """The object ends before the bytes that were asked for."""


class Incomplete(StorageError):
    """Files are there but no manifest: the upload never finished, so the thing does not exist."""


class DamagedFile(StorageError):
    """A stored file is not what its manifest says. `name` is its path inside the checkpoint or artifact."""

    def __init__(
        self, name: str, why: str, remedy: str = "use an older checkpoint, or publish the artifact again"
    ) -> None:
        super().__init__(f"{name}: {why}; {remedy}")
        self.name = name
        self.why = why


class Conflict(StorageError):
    """Something else was written to this address first."""


class InvalidName(StorageError, ValueError):
    """A name or address that can't be stored safely and portably."""


class DiskFull(StorageError):
    """The local disk has no room for what should be downloaded."""


class CheckpointFailed(StorageError):
    """A checkpoint can't be completed, whatever the store does (a local file vanished, another rank gave up)."""
