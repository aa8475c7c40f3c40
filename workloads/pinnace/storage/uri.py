"""Addresses of objects and the names that may occur in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pinnace.storage.errors import InvalidName

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_path(path: str) -> str:
    """Returns `path` if it is a relative path that every S3 server and file system keeps apart from all others.

    Raises `InvalidName` for absolute paths, `.` and `..`, empty segments, NUL, backslashes (SeaweedFS takes them for
    slashes), segments over 255 bytes, and names that are not UTF-8.
    """
    try:
        too_long = any(len(segment.encode()) > 255 for segment in path.split("/"))
    except UnicodeEncodeError:
        raise InvalidName(f"{path!a} is not valid UTF-8: rename the file") from None
    if too_long:
        raise InvalidName(f"{path[:80]!r}…: a part of the name is longer than 255 bytes: rename the file")
    if not path or "\0" in path or "\\" in path or any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise InvalidName(
            f"{path!r} is no plain relative path (no leading slash, '//', '.', '..', backslash, NUL): rename the file"
        )
    return path


@dataclass(frozen=True, order=True)
class S3Uri:
    """`s3://bucket/key`; the key may be empty (the bucket itself) and never ends with a slash."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> S3Uri:
        """Raises `InvalidName` when `text` is not `s3://bucket[/key]`."""
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not _BUCKET.fullmatch(bucket):
            raise InvalidName(f"{text!r} is not an S3 address: write s3://bucket/path")
        key = key.rstrip("/")
        return cls(bucket, check_path(key) if key else "")

    def __truediv__(self, path: str) -> S3Uri:
        check_path(path)
        return S3Uri(self.bucket, f"{self.key}/{path}" if self.key else path)

    def relative(self, below: S3Uri) -> str:
        """The path of `below` inside this folder."""
        return below.key[len(self.key) + 1 :] if self.key else below.key

    @property
    def folder(self) -> str:
        """The key as a listing prefix: with a trailing slash, or empty for the whole bucket."""
        return f"{self.key}/" if self.key else ""

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")
