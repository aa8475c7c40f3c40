"""Where the API server is and who we are: the pod's service account, else a kubeconfig."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import kopf

TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class NoCredentials(Exception):
    """Neither a service account nor a kubeconfig was found."""


@dataclass
class Credentials:
    """A server and an identity. A pod's token is read from its file for each request: the kubelet rotates it."""

    info: kopf.ConnectionInfo
    token_file: Path | None = None
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def load(cls) -> Credentials:
        """From the pod's service account, else from KUBECONFIG or ~/.kube/config.

        Raises:
            NoCredentials: with the remedy.
        """
        settings = kopf.OperatorSettings()
        info = kopf.login_with_service_account(settings=settings)
        if info:
            return cls(info, TOKEN_FILE)
        info = kopf.login_with_kubeconfig(settings=settings)
        if not info or not info.server:
            raise NoCredentials(
                "no service account is mounted and no kubeconfig was found: run in a pod, or set KUBECONFIG to a file"
            )
        return cls(info)

    @property
    def server(self) -> str:
        return self.info.server.rstrip("/")

    def headers(self) -> dict[str, str]:
        """The Authorization header of this moment (none for client certificates)."""
        if self.token_file:
            return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        return self.info.as_http_headers()

    def session(self, **options: object) -> aiohttp.ClientSession:
        """A new session for the running event loop; it does not carry the token (see `headers`)."""
        self._context = self._context or self.info.as_ssl_context()
        connector = aiohttp.TCPConnector(limit=64, ssl=self._context, keepalive_timeout=30)
        return aiohttp.ClientSession(connector=connector, headers={"User-Agent": "pinnace-operator"}, **options)  # type: ignore[arg-type]  # aiohttp types each option on its own
