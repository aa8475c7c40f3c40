"""What the gateway itself can fail with. Failures of calls are no exceptions: they are outcomes."""

from __future__ import annotations


class GatewayError(Exception):
    """Says what is wrong, where, and what to do."""


class ConfigInvalid(GatewayError):
    """The configuration is refused; the one before stays in force."""


class MappingInvalid(GatewayError):
    """A backup's argument or result mapping can't work."""


class AgentUnavailable(GatewayError):
    """A session pod's agent did not answer, or not as docs/toolsandbox-contract.md §5 says."""
