"""`ObjectStore` on boto3."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pinnace.storage.backoff import Backoff
from pinnace.storage.errors import NotFound, OutOfRange, StorageUnavailable
from pinnace.storage.objects import StoredObject, StoredPart
from pinnace.storage.settings import S3Settings
from pinnace.storage.uri import S3Uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_COPY_BYTES = 1 << 20  # of an answer's body at a time
_DELETE_BATCH = 1000  # the most that one DeleteObjects request takes


class S3Store:
    """One endpoint with one set of credentials. Thread-safe, survives fork and pickling."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._pid = 0
        self._made: S3Client | None = None

    def __reduce__(self) -> tuple[type[S3Store], tuple[S3Settings]]:
        return S3Store, (self.settings,)

    @property
    def _client(self) -> S3Client:
        # A forked child (data loader workers are) may not share connections: each process makes its own.
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._made, self._pid = None, os.getpid()
        with self._lock:
            if self._made is None:
                self._made = _connect(self.settings)
            return self._made

    def _asking(self, what: str, uri: S3Uri) -> AbstractContextManager[None]:
        from pinnace.storage.faults import translated

        return translated(f"{what} {uri}", self.settings.endpoint or "the AWS S3 endpoint")

    def require_bucket(self, bucket: str) -> None:
        # A write does not tell: SeaweedFS creates a missing bucket for an administrator. Nor does HEAD: without a body
        # it can't say why access is refused.
        with self._asking("list", S3Uri(bucket)):
            self._client.list_objects_v2(Bucket=bucket, Prefix=self.settings.prefix, MaxKeys=1)

    def put(self, uri: S3Uri, body: bytes, *, if_absent: bool = False) -> None:
        request: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        # The server computes the same digest and refuses a body that was damaged on its way.
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        with self._asking("write", uri):
            self._client.put_object(Bucket=uri.bucket, Key=uri.key, Body=body, ChecksumSHA256=digest, **request)

    def read(self, uri: S3Uri, start: int = 0, end: int | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        backoff = Backoff(first=0.2, cap=5)
        while True:
            try:
                return self._read_once(uri, start, end)
            except OutOfRange:
                return b""
            except StorageUnavailable as error:
                # botocore retries requests but not bodies that break off.
                if not error.transient or backoff.tries >= self.settings.patience.attempts:
                    raise
                backoff.sleep()

    def _read_once(self, uri: S3Uri, start: int, end: int | None) -> bytes:
        whole = start == 0 and end is None
        wanted: dict[str, Any] = {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with self._asking("read", uri):
            answer = self._client.get_object(Bucket=uri.bucket, Key=uri.key, **wanted)
            promised = answer["ContentLength"]
            with answer["Body"] as stream:
                body = stream.read()
        if len(body) != promised:
            raise StorageUnavailable(f"read {uri}: {len(body)} bytes came, {promised} were promised", transient=True)
        return body

    def read_into(self, uri: S3Uri, start: int, into: memoryview, *, tag: str = "") -> None:
        if not into:
            return
        backoff = Backoff(first=0.2, cap=5)
        while True:
            try:
                self._read_into_once(uri, start, into, tag)
                return
            except StorageUnavailable as error:
                if not error.transient or backoff.tries >= self.settings.patience.attempts:
                    raise
                backoff.sleep()

    def _read_into_once(self, uri: S3Uri, start: int, into: memoryview, tag: str) -> None:
        wanted: dict[str, Any] = {"Range": f"bytes={start}-{start + len(into) - 1}"}
        if tag:
            wanted["IfMatch"] = tag
        came = 0
        with self._asking("read", uri):
            answer = self._client.get_object(Bucket=uri.bucket, Key=uri.key, **wanted)
            promised = answer["ContentLength"]
            if promised < len(into):
                raise OutOfRange(f"read {uri}: it ends before byte {start + len(into)}")
            with answer["Body"] as stream:
                # In small pieces: a whole body as one `bytes` would be allocated and faulted in anew each time.
                while came < len(into) and (piece := stream.read(min(_COPY_BYTES, len(into) - came))):
                    into[came : came + len(piece)] = piece
                    came += len(piece)
        if came != len(into):
            raise StorageUnavailable(f"read {uri}: {came} bytes came, {promised} were promised", transient=True)

    def size(self, uri: S3Uri) -> int:
        return self.look(uri).size

    def look(self, uri: S3Uri) -> StoredObject:
        with self._asking("look at", uri):
            found = self._client.head_object(Bucket=uri.bucket, Key=uri.key)
            return StoredObject(uri, found["ContentLength"], found["ETag"])

    def list(self, folder: S3Uri) -> Iterator[StoredObject]:
        for page in self._pages(folder, delimiter=""):
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):  # directory markers of other tools
                    yield StoredObject(S3Uri(folder.bucket, found["Key"]), found["Size"], found["ETag"])

    def folders(self, folder: S3Uri) -> Iterator[str]:
        for page in self._pages(folder, delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"].rstrip("/").rpartition("/")[2]

    def _pages(self, folder: S3Uri, delimiter: str) -> Iterator[Any]:
        with self._asking("list", folder):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=folder.bucket, Prefix=folder.folder, Delimiter=delimiter
            ):
                # An answer that was cut in its headers must not pass for an empty folder.
                page["IsTruncated"]
                yield page

    def delete(self, uris: Iterable[S3Uri]) -> None:
        rest = iter(uris)
        while batch := list(islice(rest, _DELETE_BATCH)):
            with self._asking("delete", batch[0]):
                answer = self._client.delete_objects(
                    Bucket=batch[0].bucket, Delete={"Objects": [{"Key": uri.key} for uri in batch], "Quiet": True}
                )
            for refused in answer.get("Errors", ()):
                raise StorageUnavailable(
                    f"delete s3://{batch[0].bucket}/{refused.get('Key')}: refused ({refused.get('Code')}): "
                    "allow s3:DeleteObject",
                    transient=refused.get("Code") in {"InternalError", "SlowDown"},
                )

    def begin_parts(self, uri: S3Uri) -> str:
        with self._asking("begin", uri):
            return self._client.create_multipart_upload(Bucket=uri.bucket, Key=uri.key)["UploadId"]

    def put_part(self, uri: S3Uri, upload_id: str, number: int, body: bytes | bytearray) -> str:
        # botocore adds a CRC32 that the server checks.
        with self._asking(f"write part {number} of", uri):
            return self._client.upload_part(
                Bucket=uri.bucket,
                Key=uri.key,
                UploadId=upload_id,
                PartNumber=number,
                Body=cast("bytes", body),  # boto3 takes bytearrays, its types don't say so
            )["ETag"]

    def finish_parts(self, uri: S3Uri, upload_id: str, tags: Sequence[str]) -> None:
        with self._asking("finish", uri):
            self._client.complete_multipart_upload(
                Bucket=uri.bucket,
                Key=uri.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]},
            )

    def abort_parts(self, uri: S3Uri, upload_id: str) -> None:
        try:
            with self._asking("abort", uri):
                self._client.abort_multipart_upload(Bucket=uri.bucket, Key=uri.key, UploadId=upload_id)
        except NotFound:
            return

    def list_parts(self, uri: S3Uri, upload_id: str) -> Sequence[StoredPart]:
        with self._asking("list parts of", uri):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=uri.bucket, Key=uri.key, UploadId=upload_id
            )
            return [
                StoredPart(part["PartNumber"], part["Size"], part["ETag"])
                for page in pages
                for part in page.get("Parts", ())
            ]

    def unfinished_parts(self, folder: S3Uri) -> Iterator[tuple[S3Uri, str]]:
        with self._asking("list unfinished uploads of", folder):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=folder.bucket, Prefix=folder.folder
            )
            found = [
                (S3Uri(folder.bucket, one["Key"]), one["UploadId"]) for page in pages for one in page.get("Uploads", ())
            ]
        yield from found


def _connect(settings: S3Settings) -> S3Client:
    import boto3
    from botocore.config import Config

    # At DEBUG level botocore logs signed headers and session tokens.
    for name in ("botocore", "boto3", "s3transfer", "urllib3"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))
    patience = settings.patience
    config = Config(
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        max_pool_connections=4 * settings.concurrency,
        tcp_keepalive=True,
        # Servers other than AWS rarely have wildcard DNS.
        s3={"addressing_style": "path" if settings.endpoint else "auto"},
    )
    # A session of our own: boto3's default session is shared and not thread-safe.
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        aws_session_token=settings.session_token,
        config=config,
    )
