"""The progress server's certificates verify, and only for its names."""

from __future__ import annotations

import datetime
import ssl

import pytest
from pinnace_operator.runtime.tls import LEAF_LIFE, Authority

NOW = datetime.datetime.now(datetime.UTC)
NAME = "pinnace-operator.pinnace-system.svc"


def handshake(server: ssl.SSLContext, ca: bytes, name: str) -> ssl.SSLObject:
    client = ssl.create_default_context(cadata=ca.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours


def test_a_pod_that_has_the_ca_trusts_the_server_by_its_service_name() -> None:
    authority = Authority.create(NOW)
    peer = handshake(authority.server_context([NAME], NOW), authority.certificate, NAME).getpeercert()
    assert peer
    assert ("DNS", NAME) in peer["subjectAltName"]


def test_another_name_is_not_trusted() -> None:
    authority = Authority.create(NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority.server_context([NAME], NOW), authority.certificate, "elsewhere.svc")


def test_another_ca_is_not_trusted() -> None:
    server = Authority.create(NOW).server_context([NAME], NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, Authority.create(NOW).certificate, NAME)


def test_a_renewed_leaf_replaces_one_that_ran_out() -> None:
    authority = Authority.create(NOW - 2 * LEAF_LIFE)
    context = authority.server_context([NAME], NOW - 2 * LEAF_LIFE)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(context, authority.certificate, NAME)
    authority.renew(context, [NAME], NOW)
    assert handshake(context, authority.certificate, NAME).getpeercert()


def test_the_ca_lasts_ten_years() -> None:
    assert Authority.create(NOW).expires() - NOW > datetime.timedelta(days=3649)
