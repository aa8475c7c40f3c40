"""What any workload expects of a Kubernetes: names, services, commands in pods, limits, JobSets, Helm, storage."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import struct
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest

from e2e.cluster import Cluster, archive, processes, system_images
from e2e.cluster.archive import Entry
from e2e.cluster.components import all_components
from e2e.cluster.paths import DEFAULT_RUN
from e2e.kube import CommandError, Kubectl
from e2e.scenarios import pods

pytestmark = pytest.mark.cluster


def ready(kubectl: Kubectl, *names: str) -> None:
    kubectl.run("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=60s")


def phase(kubectl: Kubectl, name: str) -> str:
    found = kubectl.get("pod", name)
    return found["status"]["phase"] if found else ""


def finished(kubectl: Kubectl, name: str, timeout: float = 60) -> str:
    """The phase in which the pod ended."""
    return str(
        kubectl.wait(
            f"end of {name}", lambda: (p := phase(kubectl, name)) in {"Succeeded", "Failed"} and p, timeout, 0.2
        )
    )


def test_a_service_is_found_by_name_and_balances(kubectl: Kubectl) -> None:
    kubectl.apply(pods.web("one"), pods.web("two"), pods.service("shop", {"tier": "web"}), pods.sleeper("client"))
    ready(kubectl, "one", "two", "client")
    script = f"for i in $(seq 12); do wget -qO- http://shop.{kubectl.namespace}; done"
    kubectl.wait(
        "both ends answer",
        lambda: set(kubectl.run("exec", "client", "--", "sh", "-c", script).split()) == {"one", "two"},
        20,
    )


def test_a_pod_reaches_itself_by_its_service(kubectl: Kubectl) -> None:
    kubectl.apply(pods.web("one"), pods.service("shop", {"tier": "web"}))
    ready(kubectl, "one")
    assert kubectl.run("exec", "one", "--", "wget", "-qO-", "http://shop").strip() == "one"


def test_this_machine_reaches_a_service(kubectl: Kubectl) -> None:
    kubectl.apply(pods.web("one"), pods.service("shop", {"tier": "web"}))
    ready(kubectl, "one")
    service = kubectl.get("service", "shop")
    assert service
    address = f"http://{service['spec']['clusterIP']}/"
    assert urllib.request.urlopen(address, timeout=10).read().strip() == b"one"


def test_a_pod_cannot_reach_beyond_the_machine(kubectl: Kubectl) -> None:
    # TEST-NET-3 and the machine's own uplink: both are beyond the cluster.
    kubectl.apply(pods.pod("out", "nc -w 2 203.0.113.1 80 </dev/null && echo LEAK; ip route get 203.0.113.1; exit 0"))
    finished(kubectl, "out")
    assert "LEAK" not in kubectl.run("logs", "out")


def test_logs_exec_copy_and_port_forward(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(pods.web("one"))
    ready(kubectl, "one")
    (tmp_path / "there.txt").write_text("over and back")
    kubectl.run("cp", str(tmp_path / "there.txt"), f"{kubectl.namespace}/one:/tmp/there.txt")
    kubectl.run("cp", f"{kubectl.namespace}/one:/tmp/there.txt", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text() == "over and back"
    kubectl.run("exec", "one", "--", "sh", "-c", "echo said > /proc/1/fd/1")
    assert kubectl.run("logs", "one").strip() == "said"
    with kubectl.port_forward("pod/one", 8080) as address:
        assert urllib.request.urlopen(f"http://{address}/", timeout=10).read().strip() == b"one"


def test_a_pod_over_its_memory_limit_is_oom_killed(kubectl: Kubectl) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    kubectl.apply(pods.pod("greedy", "dd if=/dev/zero of=/dev/null bs=256M count=1", resources=limits))
    assert finished(kubectl, "greedy") == "Failed"
    found = kubectl.get("pod", "greedy")
    assert found
    state = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_a_hardened_pod_runs(kubectl: Kubectl) -> None:
    context = {
        "runAsNonRoot": True, "runAsUser": 65532, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    kubectl.apply(pods.pod("hard", "id -u; ! touch /x", securityContext=context))
    assert finished(kubectl, "hard") == "Succeeded"
    assert kubectl.run("logs", "hard").split()[0] == "65532"


def test_a_jobset_runs_to_completion_and_its_pods_find_each_other(kubectl: Kubectl) -> None:
    script = "until ping -c1 pair-worker-0-$((1 - JOB_COMPLETION_INDEX)).pair; do sleep 0.2; done"
    template = {
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [pods.container(script)]}
    }
    job = {"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": 0, "template": template}
    kubectl.apply(
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": "pair"},
            "spec": {"replicatedJobs": [{"name": "worker", "replicas": 1, "template": {"spec": job}}]},
        }
    )
    kubectl.run("wait", "--for=condition=Completed", "jobset/pair", "--timeout=60s")


def test_helm_installs_upgrades_and_uninstalls(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 1.0.0\n")
    template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: small}\ndata: {value: {{ .Values.value | quote }}}\n"
    (tmp_path / "templates/map.yaml").write_text(template)
    for value in ("first", "second"):
        kubectl.helm("upgrade", "--install", "small", str(tmp_path), "--wait", "--set", f"value={value}")
        assert kubectl.run("get", "configmap", "small", "-o", "jsonpath={.data.value}") == value
    kubectl.helm("uninstall", "small", "--wait")
    assert kubectl.get("configmap", "small") is None


def test_rights_come_from_rbac(kubectl: Kubectl) -> None:
    me = f"--as=system:serviceaccount:{kubectl.namespace}:default"
    with pytest.raises(CommandError, match="forbidden"):
        kubectl.run("get", "secrets", me)
    with pytest.raises(CommandError, match="forbidden"):
        kubectl.run("get", "secrets", "-A", "--as=system:node:other", "--as-group=system:nodes")


def test_s3_keeps_its_data_when_its_pod_is_killed(cluster: Cluster) -> None:
    s3 = cluster.s3
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )
    client.put_object(Bucket=s3.bucket, Key="scenario/kept", Body=b"x" * 300_000)
    storage = Kubectl(cluster.kubeconfig, "pinnace-storage")
    storage.run("delete", "pod", "s3-0", "--grace-period=0", "--force")
    storage.run("rollout", "status", "statefulset/s3", "--timeout=60s")

    def read() -> bytes:
        try:
            return bytes(client.get_object(Bucket=s3.bucket, Key="scenario/kept")["Body"].read())
        except Exception:  # noqa: BLE001 - whatever botocore makes of a server that starts
            return b""

    assert storage.wait("S3", read, 60) == b"x" * 300_000
    client.delete_object(Bucket=s3.bucket, Key="scenario/kept")


def test_an_image_is_loaded_without_the_layers_that_are_there(
    cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    entries = [
        Entry("/bin/busybox", source=system_images.BUSYBOX),
        Entry("/bin/sh", link="busybox"),
        Entry("/marker", data=b"1"),
    ]
    whole, thin = tmp_path / "whole.tar", tmp_path / "thin.tar"
    archive.write(whole, "localhost/scenario-whole:1", entries)
    assert cluster.load_image(whole) == ["localhost/scenario-whole:1"]
    with tarfile.open(whole) as source, tarfile.open(thin, "w") as target:
        manifest = json.load(source.extractfile("manifest.json") or io.BytesIO())
        config = source.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr] # it is a file: we wrote it
        layer = source.getmember(manifest[0]["Layers"][0])
        write_oci(target, "localhost/scenario-thin:1", config, layer.size)
    assert cluster.load_image(thin) == ["localhost/scenario-thin:1"]
    kubectl.apply(pods.pod("thin", "test -e /marker", image="localhost/scenario-thin:1"))
    assert finished(kubectl, "thin") == "Succeeded"


def write_oci(target: tarfile.TarFile, name: str, config: bytes, layer_size: int) -> None:
    """An OCI archive of one image whose only layer is named but absent."""

    def add(path: str, content: bytes) -> dict[str, Any]:
        info = tarfile.TarInfo(path)
        info.size = len(content)
        target.addfile(info, io.BytesIO(content))
        return {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        path = f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": f"application/vnd.oci.image.{kind}", **add(path, content)}

    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": layer_size}
    layer["digest"] = json.loads(config)["rootfs"]["diff_ids"][0]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer]}
    manifest["config"] = blob(config, "config.v1+json")
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name}
    add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    add("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())


@pytest.mark.usefixtures("cluster")
def test_nothing_listens_beyond_the_machine() -> None:
    pids = {process.pid for process in processes.marked(DEFAULT_RUN)}
    assert len(pids) > len(all_components(DEFAULT_RUN))
    inodes = {link for pid in pids for link in socket_inodes(pid)}
    found = {f"{address}:{port}" for address, port, inode in listeners() if inode in inodes}
    assert found
    assert {each for each in found if not each.startswith(("127.", "198.18.0.1:", "::1"))} == set()


def socket_inodes(pid: int) -> set[str]:
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listeners() -> list[tuple[str, int, str]]:
    """Address, port and inode of every TCP socket that listens in this network namespace."""
    found = []
    for table, size in (("tcp", 4), ("tcp6", 16)):
        for fields in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
            if fields[3] != "0A":
                continue
            raw, port = fields[1].split(":")
            words = [struct.pack("<I", int(raw[i : i + 8], 16)) for i in range(0, size * 2, 8)]
            family = socket.AF_INET if size == 4 else socket.AF_INET6
            found.append((socket.inet_ntop(family, b"".join(words)), int(port, 16), fields[9]))
    return found
