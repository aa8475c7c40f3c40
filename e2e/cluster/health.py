"""Ask a component whether it is healthy."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from e2e.cluster.paths import Run


def problem(url: str, run: Run, timeout: float = 2) -> str | None:
    """Why the component behind `url` is not healthy, or None when it is."""
    try:
        if url.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(timeout)
                probe.connect(url.removeprefix("unix:"))
            return None
        return _http(url, run, timeout)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def _http(url: str, run: Run, timeout: float) -> str | None:
    parts = urlsplit(url)
    host = f"{parts.hostname}:{parts.port}"
    connection: http.client.HTTPConnection
    if parts.scheme == "http":
        connection = http.client.HTTPConnection(host, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection(host, timeout=timeout, context=_tls(run, parts.hostname or ""))
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        text = answer.read(2000).decode(errors="replace").strip()
    finally:
        connection.close()
    return None if answer.status == 200 else f"{answer.status}: {text.splitlines()[-1] if text else ''}"


def _tls(run: Run, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(run.pki / "ca.crt"))
    if host == "127.0.0.1":
        # kcm and scheduler make a certificate in memory for their health port; nothing secret is sent to it.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_cert_chain(run.pki / "admin.crt", run.pki / "admin.key")
    return context
