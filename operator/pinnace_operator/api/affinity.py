"""Where pods should and should not run: the core of Kubernetes' affinity, bounded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType
from pinnace_operator.api.fields import whole

Key = Annotated[str, Field(min_length=1, max_length=316)]
Values = Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64), ListType()]
Weight = Annotated[int, whole(1, 100)]


class NodeRequirement(ApiModel):
    """A requirement on a node's label."""

    key: Key
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the label's value relates to `values`."""
    values: Values = ()
    """Values to compare with; none for Exists and DoesNotExist."""


class NodeTerm(ApiModel):
    """A set of requirements that must all hold."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(min_length=1, max_length=16), ListType()]
    """The requirements."""


class NodeSelector(ApiModel):
    """Terms of which one must hold."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Field(min_length=1, max_length=16), ListType()]
    """The terms."""


class PreferredNode(ApiModel):
    """A term that is better kept than not."""

    weight: Weight
    """How much, from 1 to 100."""
    preference: NodeTerm


class NodeAffinity(ApiModel):
    """Which nodes are wanted."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNode, ...], Field(max_length=16), ListType()
    ] = ()
    """What the scheduler tries to keep."""


class LabelRequirement(ApiModel):
    """A requirement on a pod's label."""

    key: Key
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to `values`."""
    values: Values = ()
    """Values to compare with; none for Exists and DoesNotExist."""


class LabelSelector(ApiModel):
    """Pods by their labels."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] | None = None
    """Labels that the pods have."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16), ListType()] = ()
    """Requirements that must all hold."""


class PodTerm(ApiModel):
    """Pods of this namespace, and what counts as the same place."""

    label_selector: LabelSelector
    topology_key: Key
    """Label of nodes whose equal values are one place, such as `kubernetes.io/hostname`."""


class PreferredPods(ApiModel):
    """A term that is better kept than not."""

    weight: Weight
    """How much, from 1 to 100."""
    pod_affinity_term: PodTerm


class PodAffinity(ApiModel):
    """Pods to be near to (or, as anti-affinity, away from)."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodTerm, ...], Field(max_length=16), ListType()
    ] = ()
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredPods, ...], Field(max_length=16), ListType()
    ] = ()
    """What the scheduler tries to keep."""


class Affinity(ApiModel):
    """Rules about nodes and about other pods, as in any pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None
    """Pods to stay away from."""
