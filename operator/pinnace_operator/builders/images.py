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

    def rollout(self, engine: str, device: str) -> str:
        """The image that serves models with `vllm` or `sglang`, on `cpu` or `cuda`."""
        return f"{self.registry}/pinnace/rollout-{engine}:{self.tag}-{device}"

    @property
    def tools(self) -> str:
        """The image without torch: tool servers, and the agent."""
        return f"{self.registry}/pinnace/tools:{self.tag}"
