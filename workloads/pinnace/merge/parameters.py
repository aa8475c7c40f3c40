"""Which value a parameter has for one tensor of one model."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.merge import LayerOverride, MergeSpec
from pydantic.alias_generators import to_camel

from .errors import InvalidMerge
from .methods import REGISTRY, Method, Task

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?|layer)\.(\d+)\.")
_NUMBERS = {"lambda_": "lambda"}


def layer_of(name: str) -> int | None:
    """Number of the layer that a tensor belongs to, None for embedding, head and final norm."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def depth(names: Sequence[str]) -> int:
    """How many layers these tensors make."""
    return 1 + max((layer for layer in map(layer_of, names) if layer is not None), default=-1)


@dataclass(frozen=True)
class Parameters:
    """The parameters of a merge: method, values, overrides."""

    method: Method
    spec: MergeSpec
    layers: int
    based: bool

    @classmethod
    def of(cls, spec: MergeSpec, *, layers: int, based: bool) -> Parameters:
        """Checks what the method takes. Raises `InvalidMerge`."""
        method = REGISTRY[spec.method.name](spec.method.settings)
        found = cls(method, spec, layers, based)
        found._check()
        return found

    def task(self, name: str, shape: tuple[int, ...]) -> Task:
        """One tensor with its values. Raises `InvalidMerge` for values that can't be."""
        contract = self.method.contract
        place = self._place(name)
        settings = self.spec.method.settings
        shared = {
            key: self._value(key, None, name, place, _number(getattr(settings, _field(key)))) for key in contract.shared
        }
        own = {
            key: tuple(
                self._value(key, label, name, place, self._given(index, key, default))
                for index, label in enumerate(self.spec.model_names)
            )
            for key, default in contract.own.items()
        }
        options = {key: value for key, value in settings if _NUMBERS.get(key, key) not in contract.shared}
        task = Task(
            name=name,
            shape=shape,
            count=len(self.spec.models),
            shared=shared,
            own=own,
            options=options,
            based=self.based,
            seed=self.spec.seed,
        )
        self.method.check(task)
        return task

    def _place(self, name: str) -> float:
        """Where between first (0) and last layer (1) a tensor is; outside the layers 0, as in mergekit."""
        layer = layer_of(name)
        if layer is None:
            return 0.0
        return layer / (self.layers - 1) if self.layers > 1 else 1.0

    def _given(self, index: int, key: str, default: float | None) -> float | None:
        given = getattr(self.spec.models[index], key)
        return _number(given) if given is not None else default

    def _value(self, key: str, model: str | None, tensor: str, place: float, default: float | None) -> float:
        for entry in self.spec.layers:
            if entry.parameter == key and entry.model in (None, model) and fits(entry, tensor):
                return along([float(value) for value in entry.values], place)
        if default is None:
            raise InvalidMerge(
                f"{tensor}: models[].{key} is not given for {model}: add it, or an entry in layers that fits the tensor"
            )
        return default

    def _check(self) -> None:
        name, contract, count = to_camel(self.spec.method.name), self.method.contract, len(self.spec.models)
        if contract.base == "required" and not self.based:
            raise InvalidMerge(f"method {name} needs a base: set spec.base")
        if count < contract.least or (contract.most is not None and count > contract.most):
            most = "" if contract.most is None else f", at most {contract.most}"
            raise InvalidMerge(f"method {name} takes at least {contract.least}{most} models, {count} are given")
        for index, model in enumerate(self.spec.models):
            for key in ("weight", "density", "gamma", "epsilon"):
                if getattr(model, key) is not None and key not in contract.own:
                    raise InvalidMerge(f"models[{index}].{key}: method {name} has no {key}: remove it")
        known = {*contract.own, *contract.shared}
        for index, entry in enumerate(self.spec.layers):
            if entry.parameter not in known:
                raise InvalidMerge(
                    f"layers[{index}].parameter: method {name} has no number {entry.parameter!r}; "
                    f"it has {', '.join(sorted(known)) or 'none'}"
                )
            if entry.model is not None and entry.parameter in contract.shared:
                raise InvalidMerge(f"layers[{index}].model: {entry.parameter} is not a model's: remove model")


def fits(entry: LayerOverride, tensor: str) -> bool:
    """Whether an override is for a tensor: `*` fits all, a pattern with `*` the whole name, other text any part."""
    if "*" in entry.match:
        return fnmatch.fnmatchcase(tensor, entry.match)
    return entry.match in tensor


def along(values: Sequence[float], place: float) -> float:
    """The value at `place` in [0, 1] on a polygon through evenly spread values."""
    scaled = place * (len(values) - 1)
    first = int(scaled)
    share = scaled - first
    return (1 - share) * values[first] + share * values[min(len(values) - 1, first + 1)]


def _number(value: Any) -> float:
    return float(value)


def _field(key: str) -> str:
    return {name: field for field, name in _NUMBERS.items()}.get(key, key)


def shown(task: Task) -> Mapping[str, Any]:
    """The values of a tensor as a plan shows them."""
    return {**task.shared, **{key: list(values) for key, values in task.own.items()}}
