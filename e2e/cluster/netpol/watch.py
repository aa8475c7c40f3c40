"""A live copy of some collections of the API, by list and watch."""

from __future__ import annotations

import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

#: Seconds without a byte (bookmarks come every minute) after which a watch counts as dead.
SILENCE = 90.0
RETRY = 0.5


class Mirror:
    """The objects of one collection by (namespace, name). `changed` is set whenever the copy changed."""

    def __init__(self, client: httpx.Client, path: str, changed: threading.Event) -> None:
        self._client, self._path, self._changed = client, path, changed
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.synced = False

    def objects(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._objects.values())

    def follow(self) -> None:
        """List, watch, and again whenever the watch ends (for ever)."""
        while True:
            try:
                self._watch(self._list())
            except (httpx.HTTPError, ValueError, KeyError) as error:
                print(f"{self._path}: {type(error).__name__}: {error}", flush=True)
                time.sleep(RETRY)

    def _list(self) -> str:
        answer = self._client.get(self._path)
        answer.raise_for_status()
        told = answer.json()
        with self._lock:
            self._objects = {_key(each): each for each in told["items"]}
            self.synced = True
        self._changed.set()
        version: str = told["metadata"]["resourceVersion"]
        return version

    def _watch(self, version: str) -> None:
        parameters = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        with self._client.stream("GET", self._path, params=parameters) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":  # most often 410: list again
                    return
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], event["object"])

    def _take(self, kind: str, resource: dict[str, Any]) -> None:
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(_key(resource), None)
            else:
                self._objects[_key(resource)] = resource
        self._changed.set()


def _key(resource: dict[str, Any]) -> tuple[str, str]:
    return resource["metadata"].get("namespace", ""), resource["metadata"]["name"]


def client(kubeconfig: Path) -> httpx.Client:
    """An HTTP client for the cluster of a kubeconfig written by `pki.kubeconfig`, whose certificates lie beside it."""
    config = yaml.safe_load(kubeconfig.read_text())
    pki, name = kubeconfig.parent / "pki", kubeconfig.stem
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / f"{name}.crt", pki / f"{name}.key")
    timeout = httpx.Timeout(10, read=SILENCE)
    return httpx.Client(
        base_url=config["clusters"][0]["cluster"]["server"], verify=context, timeout=timeout, trust_env=False
    )
