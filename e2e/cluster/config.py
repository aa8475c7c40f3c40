"""Configuration files of containerd, CNI, kubelet and kube-proxy, as pure functions of the run directory."""

from __future__ import annotations

from typing import Any

from e2e.cluster import network as net
from e2e.cluster.paths import BIN, CONTAINERD_ROOT, Run

PAUSE_IMAGE = "localhost/pause:1"


def containerd(run: Run) -> str:
    return f"""version = 3
root = "{CONTAINERD_ROOT}/root"
state = "{run.containerd}/state"
# NRI opens a socket outside of our directories.
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{run.socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{run.containerd}/opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a lower oom_score_adj is refused, and then no container starts.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{BIN}"]
  conf_dir = "{run.cni}"
  use_internal_loopback = true
"""


def conflist(run: Run) -> dict[str, Any]:
    """CNI `ptp` and not `bridge`: every packet between pods is routed, so it passes the forward hook and conntrack."""
    ipam = {
        "type": "host-local",
        "dataDir": f"{run.root}/cni-ipam",
        "ranges": [[{"subnet": net.NODE_POD_RANGE, "rangeStart": "198.18.0.10"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False, "backend": "nftables"}
    plugins = [{"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam}, portmap]
    return {"cniVersion": "1.0.0", "name": "pinnace", "plugins": plugins}


def kubelet(run: Run) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": net.NODE_IP,
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "30s"},
            "x509": {"clientCAFile": f"{run.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{run.pki}/kubelet-serving.crt",
        "tlsPrivateKeyFile": f"{run.pki}/kubelet-serving.key",
        "rotateCertificates": False,
        # Deprecated upstream, not gone: v1 hosts work with it, v2 hosts do not look at it.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": False,
        # Else it leaves six iptables tables behind.
        "makeIPTablesUtilChains": False,
        "containerRuntimeEndpoint": f"unix://{run.socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [net.DNS_IP],
        # Empty: there is nothing beyond the cluster's own names.
        "resolvConf": f"{run.root}/resolv.conf",
        "podLogsDir": f"{run.root}/podlogs",
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "volumePluginDir": f"{run.root}/kubelet-plugins",
        # No registry could give a collected image back.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "maxPods": 100,
        # A fork bomb ends here (docs/isolation.md); it counts all processes and threads of a pod.
        "podPidsLimit": 1024,
    }


def kube_proxy(run: Run) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": net.NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": net.POD_RANGE,
        "hostnameOverride": net.NODE,
        "clientConnection": {"kubeconfig": f"{run.root}/proxy.kubeconfig"},
        "nodePortAddresses": [f"{net.NODE_IP}/32"],
        # Zero: leave the machine's conntrack settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "200ms"},
    }
