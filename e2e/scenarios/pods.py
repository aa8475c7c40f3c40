"""Small manifests that scenarios share."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import psutil

BUSYBOX = "localhost/busybox:1"
Object = dict[str, Any]


def container(script: str, **more: Any) -> Object:
    command = ["/bin/sh", "-c", script]
    return {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command, **more}


def pod(
    name: str, script: str, labels: dict[str, str] | None = None, spec: Object | None = None, **more: Any
) -> Object:
    """A pod that runs `script` once; `more` belongs to its container."""
    basics = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container(script, **more)]}
    meta = {"name": name, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**basics, **(spec or {})}}


def sleeper(name: str) -> Object:
    """A pod to run commands in."""
    return pod(name, "sleep 3600")


def web(name: str, **more: Any) -> Object:
    """A pod that answers on port 8080 with its own name."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    ports = [{"containerPort": 8080, "name": "http"}]
    script = "mkdir /tmp/w && hostname > /tmp/w/index.html && httpd -f -p 8080 -h /tmp/w"
    return pod(name, script, {"tier": "web"}, ports=ports, readinessProbe=probe, **more)


def service(name: str, selector: dict[str, str], port: int = 80) -> Object:
    spec = {"selector": selector, "ports": [{"port": port, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def send_signal(pod_name: str, signal_: signal.Signals) -> int:
    """To every process of a pod of ours; returns how many there were."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PINNACE_POD") == pod_name:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    for process in found:
        # With the first process of a container, the kernel ends the others.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal_)
    return len(found)
