"""Translates what boto3 raises into our errors, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from botocore.client import ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from pinnace.storage.errors import Conflict, NotFound, OutOfRange, StorageError, StorageUnavailable

_KEYS = "correct accessKeyId, secretAccessKey and region in the storage Secret"
_BUCKET = "the bucket does not exist: create it, or correct `bucket` in the storage Secret"
_DENIED = (
    "permission denied: allow this access key s3:GetObject, PutObject, DeleteObject, ListBucket, "
    "ListBucketMultipartUploads and AbortMultipartUpload"
)
_ELSEWHERE = "the bucket is in another region or behind another endpoint: correct `region` and `endpoint`"
_REMEDIES: dict[str | int, str] = {
    "InvalidAccessKeyId": f"the access key is unknown to the server: {_KEYS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key: {_KEYS}",
    "ExpiredToken": f"the session token has expired: {_KEYS}",
    "InvalidToken": f"the session token is not valid: {_KEYS}",
    "AuthorizationHeaderMalformed": f"the signature was refused, often because of a wrong region: {_KEYS}",
    "NoSuchBucket": _BUCKET,
    "InvalidBucketName": _BUCKET,
    "RequestTimeTooSkewed": "the clocks of this node and of the S3 server differ too much: set the node's clock",
    301: _ELSEWHERE,
    307: _ELSEWHERE,
    401: _DENIED,
    403: _DENIED,
}
_KINDS: dict[int, tuple[type[StorageError], str]] = {
    404: (NotFound, "nothing is stored there"),
    412: (Conflict, "something was written there before"),
    416: (OutOfRange, "it ends before"),
}
_TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
# A body that was damaged or cut on its way is right when it is sent again.
_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "XAmzContentSHA256Mismatch",
}
# botocore takes an answer that was cut in its headers for a success with fields missing: hence KeyError.
_DAMAGED_ANSWER = (KeyError, boto.ChecksumError, boto.FlexibleChecksumError, ResponseParserError, HTTPError)
_LOST_CONNECTION = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)


def _answer(error: ClientError, what: str) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    transient = status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES
    remedy = _REMEDIES.get(code) or _REMEDIES.get(status)
    if remedy is None and status in _KINDS:
        kind, meaning = _KINDS[status]
        return kind(f"{what}: {meaning}")
    remedy = remedy or "the S3 server failed: look into its log"
    return StorageUnavailable(f"{what}: {remedy} ({status} {code})", transient=transient)


@contextmanager
def translated(what: str, endpoint: str) -> Iterator[None]:
    """Runs boto3 calls; `what` names the request in the message.

    The cause is cut off: botocore's errors may carry signed headers.
    """
    try:
        yield
    except ClientError as error:
        raise _answer(error, what) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError):
        raise StorageUnavailable(
            f"{what}: no credentials: add accessKeyId and secretAccessKey to the storage Secret"
        ) from None
    except boto.SSLError:
        raise StorageUnavailable(
            f"{what}: {endpoint} has a certificate that is not trusted here: mount its CA and set AWS_CA_BUNDLE",
            transient=True,
        ) from None
    except _LOST_CONNECTION as error:
        raise StorageUnavailable(
            f"{what}: no answer from {endpoint} ({type(error).__name__}): "
            "check that the endpoint is right, that S3 is up, and that NetworkPolicies allow it",
            transient=True,
        ) from None
    except _DAMAGED_ANSWER as error:
        raise StorageUnavailable(
            f"{what}: the answer of {endpoint} was cut or damaged on its way ({type(error).__name__})", transient=True
        ) from None
    except boto.BotoCoreError as error:
        raise StorageUnavailable(
            f"{what}: {type(error).__name__}: check endpoint, region and bucket in the storage Secret"
        ) from None
