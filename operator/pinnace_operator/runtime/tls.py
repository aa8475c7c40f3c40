"""The progress server's certificate: a CA of our own in a Secret of our own namespace, a short-lived leaf from it."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import logging
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kube import SECRETS, Kube

log = logging.getLogger(__name__)

SECRET = "pinnace-progress-tls"  # noqa: S105 -- an object's name
CA_LIFE = datetime.timedelta(days=3650)
LEAF_LIFE = datetime.timedelta(days=90)
CA_RENEW = datetime.timedelta(days=365)  # before its end, longer than any pod that holds the old one runs
_BACKDATE = datetime.timedelta(hours=1)  # clocks of nodes differ


@dataclass(frozen=True)
class Authority:
    """A CA certificate and its key, both PEM."""

    certificate: bytes
    key: bytes

    @classmethod
    def create(cls, now: datetime.datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pinnace-progress-ca")])
        certificate = (
            _builder(name, name, key.public_key(), now, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def expires(self) -> datetime.datetime:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def server_context(self, names: Sequence[str], now: datetime.datetime) -> ssl.SSLContext:
        """A TLS server context with a new leaf for `names`, valid for `LEAF_LIFE`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.renew(context, names, now)
        return context

    def renew(self, context: ssl.SSLContext, names: Sequence[str], now: datetime.datetime) -> None:
        """Put a new leaf into `context`; connections from now on get it."""
        ca_key = serialization.load_pem_private_key(self.key, None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"the key in Secret {SECRET} is no EC key: delete the Secret and restart the operator")
        ca = x509.load_pem_x509_certificate(self.certificate)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pinnace-progress")])
        leaf = (
            _builder(subject, ca.subject, key.public_key(), now, LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)  # type: ignore[arg-type]  # our own CA is EC
            .add_extension(x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        # ssl loads a chain from files only; the directory is private and gone at once.
        with tempfile.TemporaryDirectory() as directory:
            chain, private = Path(directory, "crt"), Path(directory, "key")
            chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + self.certificate)
            private.write_bytes(_pem(key))
            context.load_cert_chain(chain, private)


async def authority(kube: Kube, namespace: str, *, may_create: bool) -> Authority | None:
    """The CA from its Secret, made and stored by the leader when there is none or its end is near.

    None when there is none yet and this replica may not create it. Two replicas that create at once: the loser's
    create is a conflict, and it reads the winner's.
    """
    now = datetime.datetime.now(datetime.UTC)
    secret = await kube.get(SECRETS, namespace, SECRET)
    if secret:
        data = {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
        found = Authority(data.get("ca.crt", b""), data.get("ca.key", b""))
        if found.certificate and found.key and found.expires() - now > CA_RENEW:
            return found
    if not may_create:
        return None
    fresh = Authority.create(now)
    manifest = {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": namespace, "name": SECRET, "labels": {"app.kubernetes.io/managed-by": "pinnace"}},
        "data": {
            "ca.crt": base64.b64encode(fresh.certificate).decode(),
            "ca.key": base64.b64encode(fresh.key).decode(),
        },
    }  # fmt: skip
    try:
        if secret:
            manifest["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]  # type: ignore[index]  # the literal above
            await kube.replace(SECRETS, manifest)
        else:
            await kube.create(SECRETS, manifest)
    except kube_errors.Conflict:
        return await authority(kube, namespace, may_create=False)
    log.info("Stored a new CA for progress reports in Secret %s/%s", namespace, SECRET)
    return fresh


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign, key_cert_sign=sign, crl_sign=sign, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
