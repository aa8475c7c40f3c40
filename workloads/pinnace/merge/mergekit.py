"""mergekit's YAML configurations, translated into a `MergeSpec`.

Where mergekit means the same by another name, it is renamed; what it has and we lack (stacking layers, `union`
tokenizers, pickled weights) is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.merge import MergeSpec
from pinnace_operator.api.mergemethods import MergeMethod
from pydantic import ValidationError

from .errors import InvalidMerge, unknown
from .methods import REGISTRY

_METHODS = {"ramplus_tl": "ramplus"}
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_NUMBERS = {"max_iter": "max_iterations", "tol": "tolerance"}
_FLAGS = {
    "normalize": "normalize",
    "rescale": "rescale",
    "nuslerp_flatten": "flatten",
    "nuslerp_row_wise": "row_wise",
    "normalize_weights": "normalize_weights",
    "filter_wise": "filter_wise",
}
_WITHOUT_EFFECT = {"int8_mask"}
_OWN = ("weight", "density", "gamma", "epsilon")
_IGNORES_BASE = {"linear", "karcher"}
_PLACEHOLDER = "s3://mergekit/"
_KNOWN = {
    "models", "slices", "modules", "merge_method", "base_model", "parameters", "dtype", "out_dtype", "tokenizer",
    "tokenizer_source", "chat_template", "name",
}  # fmt: skip


@dataclass(frozen=True)
class Translated:
    """A spec, and the sources as they were written: `base` and one for each model, as (model, adapter)."""

    spec: MergeSpec
    base: tuple[str, str | None] | None
    models: tuple[tuple[str, str | None], ...]
    notes: tuple[str, ...]


def is_mergekit(document: Mapping[str, Any]) -> bool:
    """It is one of mergekit's configurations, not a spec of ours."""
    return "merge_method" in document


def translate(document: Mapping[str, Any]) -> Translated:
    """Raises `InvalidMerge` for what can't be said here."""
    strange = set(document) - _KNOWN
    if strange:
        raise InvalidMerge(f"mergekit has no {min(strange)!r} at the top of a configuration")
    method = _METHODS.get(document["merge_method"], document["merge_method"])
    if method not in REGISTRY:
        raise unknown("merge_method", document["merge_method"], [*REGISTRY, *_METHODS])
    base = document.get("base_model")
    entries = _entries(document)
    shared = dict(document.get("parameters") or {})
    if base is not None and method in _IGNORES_BASE and base not in [one["model"] for one in entries]:
        entries = [*entries, {"model": base}]
    elif base is not None and method not in _IGNORES_BASE:
        entries = [one for one in entries if one["model"] != base]
    notes: list[str] = []
    layers: list[dict[str, Any]] = []
    models = [_model(index, one, shared, method, layers) for index, one in enumerate(entries)]
    settings = _settings(method, shared, layers)
    body: dict[str, Any] = {"method": {_camel(method): settings}, "models": models, "layers": layers}
    body |= _tokenizer(document, base)
    if base is not None:
        body["base"] = {"uri": f"{_PLACEHOLDER}base"}
    dtype = document.get("out_dtype") or document.get("dtype")
    if dtype is not None:
        body["outputDtype"] = _dtype(dtype)
    if document.get("dtype") in ("bfloat16", "float16"):
        notes.append(f"dtype {document['dtype']}: it is computed in fp32 all the same, and rounded once, at the end")
    if document.get("chat_template"):
        raise InvalidMerge(
            "chat_template: not supported: the output has the base's; put the file into the base's folder"
        )
    return Translated(
        _spec(body),
        None if base is None else _reference(base),
        tuple(_reference(one["model"]) for one in entries),
        tuple(notes),
    )


def _spec(body: Mapping[str, Any]) -> MergeSpec:
    try:
        return MergeSpec.from_manifest(dict(body))
    except ValidationError as error:
        problems = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False))
        raise InvalidMerge("; ".join(f"{where}: {said}" if where else said for where, said in problems)) from None


def _entries(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    if document.get("modules"):
        raise InvalidMerge("modules: not supported: write models")
    slices = document.get("slices")
    if not slices:
        return _named(document.get("models"), "models")
    if len(slices) > 1:
        raise InvalidMerge("slices: stacking layers of several slices is not supported: merge whole models")
    if slices[0].get("parameters") or slices[0].get("base_model") or slices[0].get("residual_weight"):
        raise InvalidMerge(
            "slices[0]: parameters and base_model inside a slice are not supported: write them at the top"
        )
    sources = _named(slices[0].get("sources"), "slices[0].sources")
    ranges = {tuple(one.get("layer_range") or ()) for one in sources}
    if len(ranges) > 1 or any(each[:1] != (0,) for each in ranges):
        raise InvalidMerge("slices[0].sources: layer_range must be all layers of each model: stacking is not supported")
    return sources


def _named(entries: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not entries:
        raise InvalidMerge(f"{where}: give a list of models, each as {{model: PATH, parameters: ...}}")
    for index, one in enumerate(entries):
        if not isinstance(one, Mapping) or not one.get("model"):
            raise InvalidMerge(f"{where}[{index}].model is missing: say where the model is")
    return [dict(one) for one in entries]


def _model(
    index: int, entry: Mapping[str, Any], shared: Mapping[str, Any], method: str, layers: list[dict[str, Any]]
) -> dict[str, Any]:
    """One model; what differs between tensors goes into `layers`. The model's own values come before shared ones."""
    found: dict[str, Any] = {"name": f"model-{index}", "source": {"uri": f"{_PLACEHOLDER}{index}"}}
    own = dict(entry.get("parameters") or {})
    wanted = REGISTRY[method](MergeMethod.model_validate({method: _defaults(method)}).settings).contract.own
    for key in _OWN:
        if key not in wanted:
            continue
        for setting in (own.get(key), shared.get(key)):
            if setting is None:
                continue
            if not isinstance(setting, list | dict):
                found[key] = _decimal(setting)
                break
            _override(key, setting, layers, model=f"model-{index}")
            if _catches_all(setting):
                break
    return found


def _defaults(method: str) -> dict[str, Any]:
    return {"t": "0"} if method == "slerp" else {}


def _settings(method: str, shared: Mapping[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    settings = MergeMethod.model_validate({method: _defaults(method)}).settings
    known = {name: field.alias or name for name, field in type(settings).model_fields.items()}
    numbers = set(REGISTRY[method](settings).contract.shared)
    found: dict[str, Any] = {"t": "0"} if method == "slerp" else {}
    for name, setting in shared.items():
        key = _NUMBERS.get(name, name)
        if key in numbers:
            if isinstance(setting, list | dict):
                _override(key, setting, layers)
            else:
                found[_camel(key)] = int(setting) if key == "max_iterations" else _decimal(setting)
        elif _FLAGS.get(name) in known:
            found[known[_FLAGS[name]]] = _flag(name, setting)
        elif name not in (*_OWN, *_WITHOUT_EFFECT):
            raise InvalidMerge(f"parameters.{name}: method {method} has no such parameter")
    if method == "slerp" and "t" not in shared:
        raise InvalidMerge("parameters.t: slerp needs t")
    return found


def _flag(name: str, setting: Any) -> Any:
    if isinstance(setting, list | dict):
        raise InvalidMerge(f"parameters.{name}: it can't differ between tensors here: write true or false")
    on = setting if isinstance(setting, bool) else str(setting).lower() in ("true", "1", "1.0", "yes")
    return ("L1" if on else "None") if name == "rescale" else on


def _override(key: str, setting: Any, layers: list[dict[str, Any]], model: str | None = None) -> None:
    """mergekit: the first filter that is part of the name wins; a list of numbers runs over the layers."""
    conditions = setting if isinstance(setting, list) else [setting]
    if not all(isinstance(one, dict) for one in conditions):
        conditions = [{"value": setting}]
    for one in conditions:
        values = one["value"] if isinstance(one["value"], list) else [one["value"]]
        entry = {"match": one.get("filter") or "*", "parameter": key, "values": [_decimal(value) for value in values]}
        layers.append(entry | ({"model": model} if model else {}))


def _catches_all(setting: Any) -> bool:
    conditions = setting if isinstance(setting, list) else [setting]
    return any(not isinstance(one, dict) or one.get("filter") in (None, "*") for one in conditions)


def _tokenizer(document: Mapping[str, Any], base: str | None) -> dict[str, str]:
    source = document.get("tokenizer_source")
    if (tokenizer := document.get("tokenizer")) is not None:
        if tokenizer.get("tokens") or tokenizer.get("pad_to_multiple_of"):
            raise InvalidMerge("tokenizer.tokens, tokenizer.pad_to_multiple_of: not supported: remove them")
        source = tokenizer.get("source", "union")
    if source is None:
        return {}
    if source not in ("base", base):
        raise InvalidMerge(f"tokenizer source {source!r} is not supported: use base")
    return {"tokenizer": "AlignToBase"}


def _reference(text: str) -> tuple[str, str | None]:
    """`model` or `model+adapter`."""
    if isinstance(text, Mapping):
        raise InvalidMerge("model: write it as 'path' or 'path+adapter'")
    parts: Sequence[str] = str(text).split("+")
    return parts[0], parts[1] if len(parts) > 1 else None


def _dtype(name: str) -> str:
    if name not in _DTYPES:
        raise InvalidMerge(f"dtype {name!r}: use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _decimal(value: Any) -> str:
    return format(float(value), ".12g")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
