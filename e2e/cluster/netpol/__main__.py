"""Enforce NetworkPolicy on this node: `python -m e2e.cluster.netpol --kubeconfig FILE --socket PATH`."""

from __future__ import annotations

import argparse
import socket
import subprocess
import threading
import time
from pathlib import Path

from e2e.cluster import network
from e2e.cluster.netpol import addresses, watch
from e2e.cluster.netpol.model import live_pods
from e2e.cluster.netpol.render import render

CNI_RESULTS = Path("/var/lib/cni/results")
#: How often CNI's record is looked at; a container takes longer than that to start.
LOOK = 0.03
#: Seconds for which rules that nft refuses are tried again: on a busy machine its netlink requests can run out of time.
PATIENCE = 10.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args()
    changed = threading.Event()
    mirrors = [
        watch.Mirror(watch.client(options.kubeconfig), path, changed)
        for path in ("/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies")
    ]
    for mirror in mirrors:
        threading.Thread(target=mirror.follow, daemon=True).start()
    loaded, listener, refused_since = "", None, None
    seen: frozenset[tuple[str, int]] | None = None
    while True:
        woken = changed.wait(LOOK)
        version = addresses.version(CNI_RESULTS)
        if not (woken or version != seen) or not all(mirror.synced for mirror in mirrors):
            continue
        changed.clear()
        seen = version
        text = _ruleset(*mirrors)
        if text != loaded:
            try:
                network.load(text)
            except subprocess.CalledProcessError as error:
                refused_since = refused_since or time.monotonic()
                if time.monotonic() - refused_since > PATIENCE:
                    # Fail closed: the supervisor starts us again, the rules that are loaded stay until then.
                    raise SystemExit(f"nft refused the rules: {error.stderr}\n{text}") from error
                print(f"nft refused the rules, trying again: {error.stderr}", flush=True)
                changed.set()
                continue
            loaded, refused_since = text, None
            print(f"loaded {text.count(chr(10))} lines", flush=True)
        if listener is None:
            options.socket.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(options.socket))
            listener.listen(64)
            threading.Thread(target=_answer, args=(listener,), daemon=True).start()


def _ruleset(pods: watch.Mirror, namespaces: watch.Mirror, policies: watch.Mirror) -> str:
    known = live_pods(pods.objects(), addresses.read(CNI_RESULTS))
    labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in namespaces.objects()}
    return render(known, labels, policies.objects())


def _answer(listener: socket.socket) -> None:
    """Whoever connects learns that rules were loaded; the supervisor and `status` ask."""
    while True:
        listener.accept()[0].close()


if __name__ == "__main__":
    main()
