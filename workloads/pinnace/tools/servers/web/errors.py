"""Why a page or a search is not answered, with the outcome that the caller sees."""

from __future__ import annotations

from pinnace.tools.outcome import Outcome


class WebError(Exception):
    """Base of all errors of this server."""

    outcome = Outcome.TOOL_ERROR


class AddressDenied(WebError):
    """The address is not on the public web: a private network, this machine, another scheme or port."""

    outcome = Outcome.DENIED


class Unreachable(WebError):
    """Nothing answers there, or not in time."""

    outcome = Outcome.UNAVAILABLE


class BadPage(WebError):
    """The page answers with an error, redirects too often, or is nothing that can be read."""


class NoProvider(WebError):
    """No search provider is configured, or all of them are cooling down."""

    outcome = Outcome.UNAVAILABLE
