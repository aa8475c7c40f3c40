"""Structured logs: one JSON object a line, with the key of the object that is worked on."""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

current_key: ContextVar[str] = ContextVar("current_key", default="")

# JSON Web Tokens and Authorization values: nothing here should log one, and nothing that does gets through.
_SECRET = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?i:bearer)\s+[\w.~+/=-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+"
)


class _KeyFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.key = current_key.get()
        return True


class _JsonFormatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def redact(text: str) -> str:
    """`text` with everything that looks like a token or a private key taken out."""
    return _SECRET.sub("[redacted]", text)


def configure(form: str, level: str) -> None:
    """Send all logs to standard error, as `json` or as `text`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_KeyFilter())
    if form == "json":
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s %(key)s"
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(_JsonFormatter(fields, rename_fields=renamed))
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s %(key)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Kopf logs each event at INFO through an object logger of its own; our lines say what was done.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
