"""Certificate authorities, certificates and kubeconfigs of the embedded cluster (ECDSA P-256)."""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Ten years. The CA key never leaves a directory that only root reads, and `pinnace cluster down --purge` deletes it.
LIFETIME = timedelta(days=3650)
#: Clocks of VMs step back after a resume; a certificate must not be from the future then.
BACKDATE = timedelta(hours=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` readable by the owner only, from the first byte on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _pem(key: Key) -> bytes:
    # The traditional form: kube-controller-manager takes no PKCS#8 EC key for signing service-account tokens.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _name(common_name: str, organisation: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not ca, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alt_name(value: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(value))
    except ValueError:
        return x509.DNSName(value)


@dataclass(frozen=True)
class Authority:
    """A certificate authority; `issue` makes leaf certificates beside its own files."""

    key: Key
    certificate: x509.Certificate
    directory: Path

    @classmethod
    def create(cls, directory: Path, file: str, common_name: str, *, for_rotator: bool = False) -> Authority:
        """Make a self-signed CA and write `<file>.crt` and `<file>.key`.

        `for_rotator`: as the certificate rotator in JobSet and Kueue wants it, with an RSA key and its own name as a
        DNS SAN.
        """
        key: Key = rsa.generate_private_key(65537, 2048) if for_rotator else ec.generate_private_key(ec.SECP256R1())
        name, now = _name(common_name, None), datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if for_rotator:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        authority = cls(key, builder.sign(key, hashes.SHA256()), directory)
        (directory / f"{file}.crt").write_bytes(authority.pem)
        write_private(directory / f"{file}.key", _pem(key))
        return authority

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        file: str,
        common_name: str,
        *,
        organisation: str | None = None,
        server: bool = False,
        client: bool = False,
        alt_names: Sequence[str] = (),
    ) -> tuple[bytes, bytes]:
        """Write `<file>.crt` and `<file>.key` signed by this authority and return both as PEM."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject,
                _name(common_name, organisation),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if alt_names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alt_name(n) for n in alt_names]), False)
        certificate = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (self.directory / f"{file}.crt").write_bytes(certificate)
        write_private(self.directory / f"{file}.key", _pem(key))
        return certificate, _pem(key)


def signing_key(directory: Path, file: str) -> None:
    """Write the key pair (`<file>.key`, `<file>.pub`) that signs service-account tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(directory / f"{file}.key", _pem(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{file}.pub").write_bytes(public)


def kubeconfig(path: Path, server: str, ca: bytes, certificate: bytes, key: bytes, *, name: str = "pinnace") -> None:
    """Write a kubeconfig with everything embedded, readable by the owner only."""

    def encode(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": server, "certificate-authority-data": encode(ca)}
    user = {"client-certificate-data": encode(certificate), "client-key-data": encode(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
