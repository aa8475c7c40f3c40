"""Errors of the image commands."""

from __future__ import annotations


class ImageError(RuntimeError):
    """Something a person can act on: the message says what is wrong and what to do."""
