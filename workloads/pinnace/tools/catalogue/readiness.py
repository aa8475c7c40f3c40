"""Whether a tool has what it needs, decided before the call: nothing times out on a network that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pinnace.tools.catalogue.entry import Canary, Entry
from pinnace.tools.outcome import Outcome

INTERNET = "PINNACE_INTERNET"  # allowed | denied: whether this server's egress reaches the internet


@dataclass(frozen=True)
class Granted:
    """What a replica has been given: whether its egress reaches the internet, and the variables that are set."""

    internet: bool = False
    variables: frozenset[str] = frozenset()

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Granted:
        """Set but empty is not set: that is what a Secret with an empty key looks like."""
        names = frozenset(name for name, value in environment.items() if value)
        return cls(internet=environment.get(INTERNET) == "allowed", variables=names)


def refusal(entry: Entry, tool: str, granted: Granted) -> str | None:
    """Why the tool can't be called, with the remedy; None if it can. The call is `unavailable`: backups step in."""
    for secret in entry.secrets_of(tool):
        if secret.env not in granted.variables:
            return (
                f"{tool} needs a secret that is missing: {secret.env} ({secret.purpose}). Put it as key {secret.env} "
                f"into a Secret and name that in envFrom of server {entry.name}."
            )
    if entry.needs_internet(tool) and not granted.internet:
        return f"{tool} needs the internet: allow it in egress of server {entry.name}, or give the tool a backup."
    program = entry.needs_program(tool)
    if program and program.env not in granted.variables:
        return (
            f"{tool} needs {program.name}, which the image of tool servers has not: use an image that has it and set "
            f"{program.env} to its path in env of server {entry.name}."
        )
    return None


def expected_outcome(entry: Entry, canary: Canary, granted: Granted) -> Outcome:
    """The outcome that the canary must have here: its own, or `unavailable` where its needs are not met."""
    return Outcome.UNAVAILABLE if refusal(entry, canary.tool, granted) else canary.outcome
