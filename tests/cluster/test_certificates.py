"""The cluster's certificates are what Kubernetes and JobSet accept, for longer than any cluster lives."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from e2e.cluster import certificates, pki
from e2e.cluster.paths import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    certificates.create(run)
    return run


def load(run: Run, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((run.pki / f"{name}.crt").read_bytes())


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in found}


@pytest.mark.parametrize(
    ("name", "authority"),
    [("apiserver", "ca"), ("kubelet", "ca"), ("etcd-server", "etcd-ca"), ("front-proxy-client", "front-proxy-ca")],
)
def test_each_certificate_is_its_authoritys(run: Run, name: str, authority: str) -> None:
    load(run, name).verify_directly_issued_by(load(run, authority))


def test_they_outlive_the_cluster(run: Run) -> None:
    for file in run.pki.glob("*.crt"):
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3000), file.name
        assert certificate.not_valid_before_utc < datetime.now(UTC), file.name


def test_the_api_server_is_known_by_every_name_it_is_called(run: Run) -> None:
    assert {"127.0.0.1", "198.18.0.1", "198.19.0.1", "kubernetes.default.svc"} <= names(load(run, "apiserver"))


def test_keys_are_the_owners_only(run: Run) -> None:
    private = [*run.pki.glob("*.key"), *run.root.glob("*.kubeconfig")]
    assert len(private) > 12
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}


def test_the_node_is_in_the_group_that_its_authorizer_knows(run: Run) -> None:
    subject = load(run, "kubelet").subject.rfc4514_string()
    assert subject == "CN=system:node:node1,O=system:nodes"


def test_a_second_up_changes_no_certificate(run: Run) -> None:
    before = {file: file.read_bytes() for file in run.pki.iterdir()}
    certificates.create(run)
    assert {file: file.read_bytes() for file in run.pki.iterdir()} == before


def test_an_interrupted_creation_is_done_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    certificates.create(run)
    (run.pki / "sa.pub").unlink()
    certificates.create(run)
    load(run, "admin").verify_directly_issued_by(load(run, "ca"))
    config = yaml.safe_load((run.root / "admin.kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://198.18.0.1:6443"


def test_the_rotator_of_jobset_finds_an_rsa_key_and_its_own_name(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path, "ca", "jobset-ca", for_rotator=True)
    assert names(authority.certificate) == {"jobset-ca"}
    pem = (tmp_path / "ca.key").read_bytes()
    assert pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----")  # PKCS#1 is the only form it reads
    assert isinstance(serialization.load_pem_private_key(pem, None), rsa.RSAPrivateKey)
