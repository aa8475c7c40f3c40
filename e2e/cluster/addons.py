"""What every cluster gets: the JobSet controller from its own chart, and SeaweedFS for S3."""

from __future__ import annotations

import base64
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from pinnace.storage import S3Settings, Storage
from rich.console import Console

from e2e.cluster import network, pki, system_images, versions
from e2e.cluster.errors import ClusterError
from e2e.cluster.kubectl import MANIFESTS, Kubectl, wait_until
from e2e.cluster.paths import DEFAULT_RUN, GOMODCACHE
from e2e.cluster.system_images import SystemImage

STORAGE_NAMESPACE = "pinnace-storage"
BUCKET = "pinnace"
JOBSET_NAMESPACE = "jobset-system"
JOBSET_CHART = GOMODCACHE / f"sigs.k8s.io/jobset@{versions.JOBSET}/charts/jobset"


@dataclass(frozen=True)
class S3Access:
    """How S3 is reached; on the embedded cluster the endpoint is good in pods and on this machine."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def secret(self, namespace: str, prefix: str = "") -> dict[str, Any]:
        """The Secret `pinnace-storage` from which the jobs of `namespace` take their storage (docs/contracts.md §2)."""
        values = {
            "endpoint": self.endpoint,
            "bucket": self.bucket,
            "prefix": prefix,
            "region": self.region,
            "accessKeyId": self.access_key,
            "secretAccessKey": self.secret_key,
        }
        meta = {"name": "pinnace-storage", "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values}

    def storage(self) -> Storage:
        """To read and write it from this machine."""
        settings = S3Settings(
            self.bucket, endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key
        )
        return Storage(settings)


class Target(Protocol):
    """What installing needs of a provider."""

    name: str

    @property
    def kubeconfig(self) -> Path: ...

    def load_system_image(self, image: SystemImage) -> None: ...


def install(target: Target, console: Console) -> None:
    """Install both side by side and wait until they serve. Harmless when they do.

    Raises:
        ClusterError: one could not be installed.
    """
    start = time.monotonic()
    kubectl = Kubectl(target.kubeconfig)
    with ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(_install_jobset, target, kubectl), pool.submit(_install_s3, target, kubectl)]:
            work.result()
    console.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  JobSet and S3 serve", highlight=False)


def _install_jobset(target: Target, kubectl: Kubectl) -> None:
    if target.name == "current" and _exists(kubectl, "crd", "jobsets.jobset.x-k8s.io"):
        return  # somebody else's cluster has it: leave it as it is
    image = system_images.jobset()
    if kubectl.image(JOBSET_NAMESPACE, "deployment/jobset-controller") != image.reference:
        target.load_system_image(image)
        repository, tag = image.reference.rsplit(":", 1)
        # No replicas until the certificate is there: the chart's Secret is empty, and with that the controller would
        # fail, fill it and wait for kubelet to refresh the mount, which takes 20 s and a restart.
        kubectl(
            "upgrade", "--install", "jobset", str(JOBSET_CHART),
            f"--namespace={JOBSET_NAMESPACE}", "--create-namespace",
            f"--values={MANIFESTS / 'jobset-values.yaml'}",
            f"--set=image.repository={repository}",
            f"--set-string=image.tag={tag}", "--set=controller.replicas=0", "--force-conflicts", program="helm",
        )  # fmt: skip
        _write_webhook_certificate(kubectl)
    kubectl("--namespace", JOBSET_NAMESPACE, "scale", "deployment/jobset-controller", "--replicas=1")
    kubectl.rolled_out(JOBSET_NAMESPACE, "deployment/jobset-controller")


def _write_webhook_certificate(kubectl: Kubectl) -> None:
    """Fill JobSet's Secret in the form that its rotator accepts: an RSA key, a CA that names itself as a DNS SAN."""
    host = f"jobset-webhook-service.{JOBSET_NAMESPACE}.svc"
    with TemporaryDirectory() as directory:
        authority = pki.Authority.create(Path(directory), "ca", "jobset-ca", for_rotator=True)
        authority.issue("tls", host, server=True, alt_names=[host])
        data = {name: Path(directory, name).read_text() for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
    _apply_secret(kubectl, JOBSET_NAMESPACE, "jobset-webhook-server-cert", data)


def _apply_secret(kubectl: Kubectl, namespace: str, name: str, values: dict[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "data": data}
    arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=pinnace-cluster", "-f", "-")
    kubectl(*arguments, stdin=json.dumps(secret))


def _install_s3(target: Target, kubectl: Kubectl) -> None:
    image = system_images.seaweedfs()
    target.load_system_image(image)
    if not _exists(kubectl, "namespace", STORAGE_NAMESPACE):
        kubectl("create", "namespace", STORAGE_NAMESPACE)
    if not _exists(kubectl, "secret", "s3", "--namespace", STORAGE_NAMESPACE):
        _create_credentials(kubectl)
    # Elsewhere the node's disk is somebody else's, and so are its addresses.
    ours = target.name == "embedded"
    data = DEFAULT_RUN.storage if ours else Path("/var/lib/pinnace/s3")
    address = f"clusterIP: {network.S3_IP}" if ours else "type: ClusterIP"
    kubectl.apply("s3.yaml", s3_image=image.reference, cluster_ip=address, data=str(data))
    kubectl.rolled_out(STORAGE_NAMESPACE, "statefulset/s3")
    wait_until("S3 bucket", lambda: _bucket_problem(kubectl), 60)


def _create_credentials(kubectl: Kubectl) -> None:
    access_key, secret_key = "pinnace", secrets.token_urlsafe(24)
    identity = {
        "name": "pinnace",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = json.dumps({"identities": [identity]})
    values = {"accessKeyId": access_key, "secretAccessKey": secret_key, "bucket": BUCKET, "s3.json": config}
    _apply_secret(kubectl, STORAGE_NAMESPACE, "s3", values)


def _bucket_problem(kubectl: Kubectl) -> str | None:
    """Create the bucket unless it is there, by the server's own shell: services of kind are not reached from here."""
    shell = ("--namespace", STORAGE_NAMESPACE, "exec", "-i", "s3-0", "--", "/weed", "shell", "-master=127.0.0.1:9333")
    try:
        listed = kubectl(*shell, stdin="s3.bucket.list\n")
        if any(line.split()[:1] == [BUCKET] for line in listed.splitlines()):
            return None
        kubectl(*shell, stdin=f"s3.bucket.create -name {BUCKET}\n")
    except ClusterError as error:
        return str(error)
    return None


def access(kubectl: Kubectl) -> S3Access:
    """How to reach the cluster's S3.

    Raises:
        ClusterError: it is not installed.
    """
    secret = json.loads(kubectl("--namespace", STORAGE_NAMESPACE, "get", "secret", "s3", "-o", "json"))
    service = json.loads(kubectl("--namespace", STORAGE_NAMESPACE, "get", "service", "s3", "-o", "json"))
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    endpoint = f"http://{service['spec']['clusterIP']}:8333"
    return S3Access(endpoint, values["bucket"], values["accessKeyId"], values["secretAccessKey"])


def _exists(kubectl: Kubectl, kind: str, name: str, *options: str) -> bool:
    try:
        return bool(kubectl("get", kind, name, "--ignore-not-found", "-o", "name", *options).strip())
    except ClusterError as error:
        raise ClusterError(f"the API server does not answer: {error}") from error
