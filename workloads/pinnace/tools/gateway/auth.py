"""Who calls: a tenant by its token, a service account by TokenReview, or a lease by its own token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pinnace.tools.gateway.errors import GatewayError
from pinnace.tools.gateway.kube import Kube
from pinnace.tools.gateway.lease import Lease

log = logging.getLogger(__name__)

AUDIENCE = "pinnace-tools"
TOKENS = Path("/var/run/secrets/pinnace-tools/tokens")
_REREAD = 2.0  # seconds; the kubelet renews a mounted Secret within a minute anyway
_VERDICT = 60.0  # seconds that a TokenReview's verdict is kept


class Unauthorized(GatewayError):
    """No token, or one that nobody knows."""


@dataclass(frozen=True)
class Caller:
    """On whose behalf a request comes."""

    tenant: str
    lease: Lease | None = None


def digest(token: str) -> str:
    """What is kept of a token: SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """One file a tenant, with its token (or several, one a line, while one is being replaced)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_digest: dict[str, str] = {}
        self._read_at = -_REREAD

    def tenant(self, token_digest: str) -> str | None:
        self._refresh()
        found = None
        for known, tenant in self._by_digest.items():  # all are compared, each in constant time
            if hmac.compare_digest(known, token_digest):
                found = tenant
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < _REREAD:
            return
        self._read_at = now
        found: dict[str, str] = {}
        try:
            for file in sorted(self._folder.iterdir()):
                if not file.name.startswith(".") and file.is_file():
                    found |= {digest(line): file.name for line in file.read_text().split()}
        except OSError as error:
            log.warning("tokens can't be read: %s", error)
            return
        self._by_digest = found


class Authenticator:
    """Turns an Authorization header into a `Caller`.

    Args:
        tokens: of the tenants.
        kube: for TokenReview; None outside a cluster.
        lease: finds a lease by its token's digest; may ask the pods.
    """

    def __init__(self, *, tokens: Tokens, kube: Kube | None, lease: Callable[[str], Lease | None]) -> None:
        self.mode = "Token"
        self._tokens = tokens
        self._kube = kube
        self._lease = lease
        self._verdicts: dict[str, tuple[float, str]] = {}

    async def caller(self, header: str | None) -> Caller:
        """Raises `Unauthorized`."""
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            if self.mode == "None":
                return Caller("default")
            raise Unauthorized("send `Authorization: Bearer <token>` with a token of this ToolSandbox or of a lease")
        known = digest(token)
        lease = self._lease(known)
        if lease is not None:
            return Caller(lease.tenant, lease)
        tenant: str | None = None
        if self.mode == "Token":
            tenant = self._tokens.tenant(known)
        elif self.mode == "ServiceAccount":
            tenant = await self._review(token, known)
        elif self.mode == "None":
            tenant = "default"
        if tenant is None:
            raise Unauthorized("the token is not known: it is wrong, or its lease has expired (POST /sessions again)")
        return Caller(tenant)

    async def _review(self, token: str, known: str) -> str | None:
        now = asyncio.get_running_loop().time()
        until, tenant = self._verdicts.get(known, (0.0, ""))
        if now < until:
            return tenant or None
        if self._kube is None:
            raise Unauthorized("auth mode ServiceAccount works in a cluster only")
        tenant = await self._kube.review(token, AUDIENCE)
        self._verdicts = {each: entry for each, entry in self._verdicts.items() if entry[0] > now}
        self._verdicts[known] = (now + _VERDICT, tenant)
        return tenant or None
