"""Where the embedded cluster keeps what: a cache that outlives clusters and a run directory that is one cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("PINNACE_CACHE") or Path.home() / ".cache" / "pinnace").absolute()
BIN = CACHE / "bin"
GOMODCACHE = CACHE / "go" / "mod"
GOCACHE = CACHE / "go" / "build"
SYSTEM_IMAGES = CACHE / "system-images"
#: containerd's blobs and unpacked layers: gigabytes that are imported once, not at every `up`.
CONTAINERD_ROOT = CACHE / "containerd"

#: Whose cluster runs on this machine (addresses are fixed, so there can be one).
OWNER_FILE = Path("/run/pinnace-cluster.json")
#: Held while an `up` or a `down` works.
OPERATION_LOCK = Path("/run/pinnace-cluster.lock")
#: In the environment of every process of a cluster: what `down` finds them by, whatever was killed.
RUN_MARK = "PINNACE_CLUSTER_RUN"
COMPONENT_MARK = "PINNACE_CLUSTER_COMPONENT"


@dataclass(frozen=True)
class Run:
    """The directories and files of one cluster below `root`."""

    root: Path

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def containerd(self) -> Path:
        return self.root / "containerd"

    @property
    def socket(self) -> Path:
        return self.containerd / "containerd.sock"

    @property
    def containerd_config(self) -> Path:
        return self.containerd / "config.toml"

    @property
    def cni(self) -> Path:
        return self.root / "cni"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    @property
    def components(self) -> Path:
        """What the supervisor keeps running, written by `up`."""
        return self.root / "components.json"

    @property
    def state(self) -> Path:
        """What the supervisor knows about them, read by `status`."""
        return self.root / "supervisor.json"

    @property
    def sysctls(self) -> Path:
        """Kernel settings as they were before `up`."""
        return self.root / "sysctls.json"

    @property
    def storage(self) -> Path:
        """Data of the S3 server."""
        return self.root / "s3"


DEFAULT_RUN = Run(CACHE / "cluster")
