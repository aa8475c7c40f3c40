"""Where a job's images come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Images:
    """The installation's registry and tag."""

    registry: str
    tag: str
    pull_policy: str

    def trainer(self, device: str) -> str:
        """The image with torch, for `cpu` or `cuda`: it trains and merges."""
        return f"{self.registry}/pinnace/trainer:{self.tag}-{device}"
