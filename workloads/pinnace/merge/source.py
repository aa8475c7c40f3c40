"""One model as it lies in a folder: its files, tensors, configuration, tokenizer and adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pinnace.storage.artifacts import present
from pinnace.storage.errors import Conflict, NotFound
from pinnace.storage.manifest import MANIFEST, FileEntry
from pinnace.storage.objects import ObjectStore, StoredObject
from pinnace.storage.uri import S3Uri

from .errors import SourceChanged, SourceDamaged, SourceUnusable
from .tensors import PREFIX_BYTES, StoredTensor, header_bytes, parse_header

INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FIRST_READ = 1 << 18  # most headers come with the first request
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Folder:
    """A folder in a store, with a snapshot of its files: what is read later is what was listed, or an error."""

    store: ObjectStore
    uri: S3Uri

    @cached_property
    def files(self) -> Mapping[str, StoredObject]:
        """Every file by its path inside. Raises `SourceUnusable` if there is none."""
        found = {self.uri.relative(one.uri): one for one in self.store.list(self.uri)}
        if not found:
            raise SourceUnusable(f"{self.uri}: nothing is stored there; check the address")
        return found

    def read(self, name: str) -> bytes:
        """The whole file."""
        body = bytearray(self.files[name].size)
        self.read_into(name, 0, memoryview(body))
        return bytes(body)

    def read_into(self, name: str, start: int, into: memoryview) -> None:
        """Fills `into` from byte `start`. Raises `SourceChanged`."""
        known = self.files[name]
        try:
            self.store.read_into(known.uri, start, into, tag=known.tag)
        except (Conflict, NotFound):
            raise SourceChanged(
                f"{known.uri} was changed or removed while it was read: let nobody write there, and start again"
            ) from None

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object. Raises `SourceUnusable`."""
        try:
            found = json.loads(self.read(name))
        except ValueError:
            raise SourceUnusable(f"{self.uri / name} is not valid JSON: upload it again") from None
        if not isinstance(found, dict):
            raise SourceUnusable(f"{self.uri / name} holds no JSON object: upload it again")
        return found

    @cached_property
    def manifest(self) -> Mapping[str, FileEntry]:
        """What the folder's manifest says about each file; empty without a manifest."""
        found = present(self.store, self.uri) if MANIFEST in self.files else None
        return {file.path: file for file in found.files} if found else {}

    @cached_property
    def digest(self) -> str | None:
        """Digest of the manifest, None without one."""
        found = present(self.store, self.uri) if MANIFEST in self.files else None
        return found.digest if found else None


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: for each weight it changes, where A (r, in) and B (out, r) lie, and their scale."""

    folder: Folder
    pairs: Mapping[str, tuple[StoredTensor, StoredTensor, float]]
    replaced: Mapping[str, StoredTensor]
    """Weights that were trained whole (`modules_to_save`)."""
    transposed: bool
    base: str
    """What it says it was trained on."""


@dataclass(frozen=True)
class Model:
    """One model: weights in a folder, and perhaps an adapter on top."""

    name: str
    folder: Folder
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, Any]
    adapter: Adapter | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def architecture(self) -> tuple[str, ...]:
        """What `config.json` calls it."""
        return tuple(self.config.get("architectures") or (str(self.config.get("model_type")),))

    @property
    def tied(self) -> bool:
        """The head is the embedding. transformers' default is true for most; files tell the rest."""
        return bool(self.config.get("tie_word_embeddings", False))


def is_adapter(folder: Folder) -> bool:
    """The folder holds a LoRA adapter in PEFT's layout."""
    return ADAPTER_CONFIG in folder.files


def open_model(name: str, folder: Folder) -> Model:
    """Reads configuration and headers, no weights.

    Raises:
        SourceUnusable: nothing there, no safetensors, a broken index or header, pickled weights.
        SourceDamaged: a file's size is not what the folder's manifest says.
    """
    files = folder.files
    if "config.json" not in files:
        raise SourceUnusable(f"{folder.uri} has no config.json: give the folder of a model in Hugging Face layout")
    weights = _weight_files(folder)
    _check_sizes(folder, [*weights, "config.json"])
    tensors: dict[str, StoredTensor] = {}
    for file in weights:
        for tensor in read_header(folder, file):
            if tensor.name in tensors:
                raise SourceUnusable(
                    f"{folder.uri}: {tensor.name} is in {tensors[tensor.name].file} and in {file}: remove one"
                )
            tensors[tensor.name] = tensor
    if INDEX in files:
        _check_index(folder, tensors)
    return Model(name, folder, tensors, folder.json("config.json"))


def read_header(folder: Folder, file: str) -> list[StoredTensor]:
    """The tensors of one file."""
    size = folder.files[file].size
    first = bytearray(min(_FIRST_READ, size))
    folder.read_into(file, 0, memoryview(first))
    length = header_bytes(bytes(first[:PREFIX_BYTES]), str(folder.uri / file), size)
    end = PREFIX_BYTES + length
    if end > len(first):
        rest = bytearray(end - len(first))
        folder.read_into(file, len(first), memoryview(rest))
        first += rest
    return [
        StoredTensor(one.name, one.dtype, one.shape, file, one.start, one.end)
        for one in parse_header(bytes(first[PREFIX_BYTES:end]), str(folder.uri / file), size)
    ]


def _weight_files(folder: Folder) -> list[str]:
    files = folder.files
    if INDEX in files:
        table = folder.json(INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise SourceUnusable(f"{folder.uri / INDEX} has no weight_map: upload it again")
        names = sorted(set(table.values()))
        for name in names:
            if name not in files:
                raise SourceUnusable(f"{folder.uri}: {INDEX} names {name}, which is missing: upload it")
        return names
    found = sorted(name for name in files if name.endswith(".safetensors") and "/" not in name)
    if "model.safetensors" in found:
        return ["model.safetensors"]
    if len(found) == 1:
        return found
    if found:
        raise SourceUnusable(f"{folder.uri} has {len(found)} safetensors files and no {INDEX}: add the index")
    pickled = [name for name in files if name.endswith(_PICKLES)]
    if pickled:
        raise SourceUnusable(
            f"{folder.uri} has its weights in {pickled[0]}, a pickle, which can run code: convert it to safetensors"
        )
    raise SourceUnusable(f"{folder.uri} has no safetensors files: give the folder of a model in Hugging Face layout")


def _check_index(folder: Folder, tensors: Mapping[str, StoredTensor]) -> None:
    for name, file in folder.json(INDEX)["weight_map"].items():
        if name not in tensors or tensors[name].file != file:
            where = f"is in {tensors[name].file}" if name in tensors else "is in no file"
            raise SourceUnusable(
                f"{folder.uri}: {INDEX} says that {name} is in {file}, but it {where}: rebuild the index"
            )


def _check_sizes(folder: Folder, names: list[str]) -> None:
    for name in names:
        entry = folder.manifest.get(name)
        if entry and entry.size != folder.files[name].size:
            raise SourceDamaged(
                f"{folder.uri / name} has {folder.files[name].size} bytes, its manifest says {entry.size}: "
                "publish the model again"
            )


def open_adapter(folder: Folder) -> Adapter:
    """Reads an adapter's configuration and header.

    Raises `SourceUnusable` for what is no plain LoRA on linear layers (DoRA, embeddings, biases).
    """
    config = folder.json(ADAPTER_CONFIG)
    if _ADAPTER_WEIGHTS not in folder.files:
        raise SourceUnusable(f"{folder.uri} has no {_ADAPTER_WEIGHTS}: save the adapter as safetensors")
    remedy = "merge it into its base with PEFT first"
    if config.get("peft_type") != "LORA":
        raise SourceUnusable(f"{folder.uri} is a {config.get('peft_type')} adapter, not LoRA: {remedy}")
    for key in ("use_dora", "alora_invocation_tokens", "lora_bias", "use_qalora", "layer_replication"):
        if config.get(key):
            raise SourceUnusable(f"{folder.uri}: {key} is set in {ADAPTER_CONFIG}: {remedy}")
    _check_sizes(folder, [_ADAPTER_WEIGHTS])
    halves: dict[str, dict[str, StoredTensor]] = {}
    replaced: dict[str, StoredTensor] = {}
    for tensor in read_header(folder, _ADAPTER_WEIGHTS):
        name = tensor.name.removeprefix("base_model.model.")
        for half in ("A", "B"):
            if name.endswith(f".lora_{half}.weight"):
                halves.setdefault(f"{name.removesuffix(f'.lora_{half}.weight')}.weight", {})[half] = tensor
                break
        else:
            if "lora_" in name:
                raise SourceUnusable(f"{folder.uri}: {tensor.name} is no matrix of a linear layer: {remedy}")
            replaced[name.replace(".modules_to_save", "").replace(".original_module", "")] = tensor
    pairs = {name: _pair(folder, name, half, config) for name, half in halves.items()}
    return Adapter(
        folder, pairs, replaced, bool(config.get("fan_in_fan_out")), str(config.get("base_model_name_or_path") or "")
    )


def _pair(
    folder: Folder, name: str, halves: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> tuple[StoredTensor, StoredTensor, float]:
    if set(halves) != {"A", "B"}:
        raise SourceUnusable(f"{folder.uri}: {name} has only one of lora_A and lora_B: save the adapter again")
    a, b = halves["A"], halves["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise SourceUnusable(
            f"{folder.uri}: {name}: lora_A {list(a.shape)} and lora_B {list(b.shape)} don't fit: save the adapter again"
        )
    module = name.removesuffix(".weight")
    alpha = float(_by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"]))
    rank = a.shape[0]
    return a, b, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: a key fits if the module's name is it or ends with `.` and it (keys may be regular expressions)."""
    import re

    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default
