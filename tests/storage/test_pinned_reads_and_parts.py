"""Reads that are pinned to one content, and unfinished uploads that are looked into."""

from __future__ import annotations

import pytest
from pinnace.storage import Conflict, NotFound, Storage
from pinnace.storage.errors import OutOfRange

from e2e.faults.s3proxy import Fault, S3Proxy
from e2e.stored import PART


def test_a_pinned_read_notices_another_content(storage: Storage) -> None:
    uri = storage.settings.root / "pinned"
    storage.write(uri, b"0123456789")  # insists: the first write into a bucket is slow
    tag = storage.store.look(uri).tag
    assert next(one.tag for one in storage.list(storage.settings.root)) == tag
    into = bytearray(4)
    storage.store.read_into(uri, 3, memoryview(into), tag=tag)
    assert into == b"3456"
    with pytest.raises(OutOfRange):
        storage.store.read_into(uri, 8, memoryview(into), tag=tag)
    storage.store.put(uri, b"abcdefghij")
    with pytest.raises(Conflict):
        storage.store.read_into(uri, 3, memoryview(into), tag=tag)
    with pytest.raises(NotFound):
        storage.store.look(storage.settings.root / "nothing")


def test_a_body_that_breaks_off_is_read_again(storage: Storage, proxied: Storage, proxy: S3Proxy) -> None:
    uri, content = storage.settings.root / "cut", bytes(range(256)) * 8000
    storage.write(uri, content)
    into = bytearray(len(content))
    proxy.fault = Fault("cut", after=500_000, times=1)
    proxied.store.read_into(uri, 0, memoryview(into))
    assert into == content
    assert proxy.fault.hits == 1


def test_parts_of_an_unfinished_upload_are_listed(storage: Storage) -> None:
    uri = storage.settings.root / "parts"
    storage.write(storage.settings.root / "first", b"")
    upload = storage.store.begin_parts(uri)
    tags = {number: storage.store.put_part(uri, upload, number, bytes(PART + number)) for number in (3, 1)}
    found = storage.store.list_parts(uri, upload)
    assert [(part.number, part.size) for part in found] == [(1, PART + 1), (3, PART + 3)]
    assert {part.number: part.tag for part in found} == tags
    storage.store.abort_parts(uri, upload)
    with pytest.raises(NotFound):
        storage.store.list_parts(uri, upload)
