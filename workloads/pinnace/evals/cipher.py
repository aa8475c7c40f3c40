"""The ciphers that keep benchmark questions from plain-text crawls."""

from __future__ import annotations

import base64
import binascii
import hashlib
from itertools import cycle

from .errors import DataInvalid


def decrypt_sha256(text: str, canary: str) -> str:
    """BrowseComp and BrowseComp-ZH: base64, then XOR with SHA-256(canary), repeated. Raises `DataInvalid`."""
    return _decrypt(text, hashlib.sha256(canary.encode()).digest())


def encrypt_sha256(text: str, canary: str) -> str:
    """The reverse of `decrypt_sha256`."""
    return base64.b64encode(_xor(text.encode(), hashlib.sha256(canary.encode()).digest())).decode()


def decrypt_plain(text: str, canary: str) -> str:
    """xbench: base64, then XOR with the canary's own bytes, repeated; no hash. Raises `DataInvalid`."""
    return _decrypt(text, canary.encode())


def encrypt_plain(text: str, canary: str) -> str:
    """The reverse of `decrypt_plain`."""
    return base64.b64encode(_xor(text.encode(), canary.encode())).decode()


def _decrypt(text: str, key: bytes) -> str:
    if not key:
        raise DataInvalid("the canary is empty, so nothing can be decrypted: the file is damaged")
    try:
        return _xor(base64.b64decode(text, validate=True), key).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise DataInvalid(
            f"a field does not decrypt with its canary ({error}): the file is damaged, or was decrypted before"
        ) from None


def _xor(data: bytes, key: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(data, cycle(key), strict=False))
