"""What can be wrong with a request to the offline world. Messages are read by the model, so they name the next step."""

from __future__ import annotations


class WorldError(Exception):
    """Base of all errors of `pinnace.tools.world`."""


class NoSuchPage(WorldError):
    """Nothing is at this address, or it has no such page number."""
