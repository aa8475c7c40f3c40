"""API resources of the kinds in the registry, and of Kueue."""

from __future__ import annotations

from collections.abc import Mapping

from pinnace_operator.api.base import GROUP, VERSION
from pinnace_operator.reconcile import registry
from pinnace_operator.runtime.kube import Resource

KINDS: Mapping[str, Resource] = {
    name: Resource(GROUP, VERSION, kind.plural, name) for name, kind in registry.KINDS.items()
}
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta1", "workloads", "Workload")


def _resource(child: registry.ChildKind) -> Resource:
    group, _, version = child.api_version.rpartition("/")
    return Resource(group, version, child.plural, child.kind)


_CHILDREN = {
    (child.api_version, child.kind): _resource(child) for kind in registry.KINDS.values() for child in kind.children
}
LISTED: tuple[Resource, ...] = tuple(_resource(child) for child in registry.SERVICE_CHILDREN if child.listed)
"""Kinds whose objects are facts of a service."""
ORPHANED: tuple[Resource, ...] = tuple(
    dict.fromkeys(_resource(each) for kind in registry.KINDS.values() for each in kind.children if each.orphaned)
)
"""Kinds whose objects a resync deletes when their owner is gone."""


def child_resource(api_version: str, kind: str) -> Resource:
    """Where children of this kind live.

    Raises:
        KeyError: the registry does not list it, so the operator has no rights on it either.
    """
    return _CHILDREN[api_version, kind]
