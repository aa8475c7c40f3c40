"""Progress reaches the server, and its absence never reaches the job."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pinnace.progress import Endpoint, Identity, Progress
from pinnace_operator.api.progress import ProgressReport

WHO = Identity("SFTJob", "ns", "job", "uid-1", 2)


class Server:
    """HTTPS on loopback. `answers` are the statuses of the next requests, then 200."""

    def __init__(self, folder: Path) -> None:
        self.reports: list[ProgressReport] = []
        self.tokens: list[str] = []
        self.sizes: list[int] = []
        self.answers: list[int] = []
        self.got = threading.Condition()
        self.ca, certificate = _certificate(folder)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.got:
                    status = outer.answers.pop(0) if outer.answers else 200
                    outer.sizes.append(len(body))
                    outer.tokens.append(self.headers["Authorization"])
                    if status == 200:
                        outer.reports.append(ProgressReport.model_validate_json(body))
                    self.send_response(status)
                    if status == 503:
                        self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    outer.got.notify_all()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.http.server_port}"

    def wait_for(self, reports: int) -> ProgressReport:
        with self.got:
            assert self.got.wait_for(lambda: len(self.reports) >= reports, 30)
            return self.reports[-1]


def _certificate(folder: Path) -> tuple[str, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "progress")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + pem)
    return pem.decode(), folder / "server.pem"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest.fixture
def progress(server: Server, token: Path) -> Iterator[Progress]:
    progress = Progress(WHO, Endpoint(server.url, server.ca, token), interval=0.05)
    yield progress
    progress.close(10)


def test_a_report_arrives_whole(progress: Progress, server: Server) -> None:
    progress.event("Warning", "StorageDegraded", "S3 is away")
    progress.report(step=3, total_steps=10, eta_seconds=5, throughput="8 tokens/s", metrics={"loss": "0.5"})
    report = server.wait_for(1)
    while report.step != 3:
        report = server.wait_for(len(server.reports) + 1)
    assert (report.kind, report.uid, report.attempt, report.total_steps) == ("SFTJob", "uid-1", 2, 10)
    assert [(metric.name, metric.value) for metric in report.metrics] == [("loss", "0.5")]
    assert [event.reason for each in server.reports for event in each.events] == ["StorageDegraded"]


def test_the_newest_wins_and_events_are_kept_while_the_server_is_away(progress: Progress, server: Server) -> None:
    server.answers = [503, 503, 503]
    for step in range(50):
        progress.report(step=step)
    progress.event("Normal", "CheckpointSaved", "step 40")
    progress.close(20)
    assert server.reports[-1].step == 49
    assert [event.message for each in server.reports for event in each.events] == ["step 40"]
    assert len(server.reports) < 50


def test_the_token_is_read_again(progress: Progress, server: Server, token: Path) -> None:
    progress.report(step=1)
    server.wait_for(1)
    token.write_text("second\n")
    progress.report(step=2)
    server.wait_for(2)
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_a_stale_attempt_stops_reporting(progress: Progress, server: Server) -> None:
    server.answers = [409]
    progress.report(step=1)
    with server.got:
        assert server.got.wait_for(lambda: len(server.tokens) == 1, 30)
    progress.close(10)
    progress.report(step=2)
    assert server.reports == []
    assert len(server.tokens) == 1


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "https://nowhere.invalid", "not a url", None])
def test_a_server_that_is_not_there_costs_nothing(url: str | None, server: Server, token: Path) -> None:
    progress = Progress(WHO, Endpoint(url, server.ca, token) if url else None, interval=0.05)
    progress.report(step=1)
    progress.event("Normal", "Started", "")
    progress.close(0.5)


def test_a_server_with_another_certificate_is_not_trusted(server: Server, token: Path) -> None:
    progress = Progress(WHO, Endpoint(server.url, None, token), interval=0.05)
    progress.report(step=1)
    progress.close(0.5)
    assert server.tokens == []


def test_reports_stay_within_what_the_server_accepts(progress: Progress, server: Server) -> None:
    for number in range(100):
        progress.event("Warning", "Noisy", f"{number} " + "ü" * 5000)
    progress.report(step=1, metrics={f"metric/{number}": "1" * 30 for number in range(200)})
    progress.close(20)
    assert server.reports[-1].step == 1
    assert max(server.sizes) < 64 << 10


def test_a_report_that_is_not_valid_does_not_end_reporting(progress: Progress, server: Server) -> None:
    progress.report(step=1, metrics={"loss": "1" * 100})
    progress.report(step=2, metrics={"loss": "1"})
    progress.close(20)
    assert server.reports[-1].step == 2
