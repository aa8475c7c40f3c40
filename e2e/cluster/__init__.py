"""A real Kubernetes for demo, tests and development: `from e2e.cluster import cluster`, or `pinnace cluster`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2e.cluster.addons import S3Access
    from e2e.cluster.errors import ClusterError
    from e2e.cluster.providers import Cluster, cluster

__all__ = ["Cluster", "ClusterError", "S3Access", "cluster"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `e2e.cluster.pki` alone must not pull all of this in.
    if name in __all__:
        from e2e.cluster import providers

        return getattr(providers, name)
    raise AttributeError(name)
