"""The whole merge, decided before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pinnace_operator.api.merge import Dtype, MergeSpec

from pinnace.storage.artifacts import ARTIFACT, Ancestor
from pinnace.storage.manifest import MANIFEST

from .errors import InvalidMerge
from .inputs import Input, Read, coalesced, extent, reads
from .layout import PART_BYTES, OutputTensor, Part, Shard, block_step, shards
from .matching import Matched, Matching
from .methods import Task
from .parameters import Parameters, depth
from .source import INDEX, Adapter, Folder, Model, is_adapter, open_adapter, open_model

ENGINE = 1
"""Part of the plan's hash: raise it when the same plan would give other bytes."""
_DECIDE = set(MergeSpec.model_fields) - {"memory_limit", "sweep"}
STORED = {Dtype.BF16: "BF16", Dtype.FP16: "F16", Dtype.FP32: "F32"}
_CONFIG_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_MOST_COPIED_BYTES = 64 << 20
_WEIGHTS = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".onnx",
    ".msgpack", ".h5",
)  # fmt: skip
_LEFT_OUT = (MANIFEST, ARTIFACT, "README.md", ".gitattributes", "trainer_state.json", "training_args.bin")


@dataclass(frozen=True)
class SourceFolders:
    """Where one model lies: its folder, and its adapter's if it has one. `ref` names it in the output's lineage."""

    folder: Folder
    adapter: Folder | None = None
    ref: str = "model"


@dataclass(frozen=True)
class MergedTensor:
    """One tensor of the output: what it is made of, and the method's values (None: it is copied)."""

    output: OutputTensor
    matched: Matched
    task: Task | None

    @property
    def merged(self) -> Task:
        """Its task, where it is known to be merged."""
        if self.task is None:
            raise TypeError(f"{self.output.name} is copied")
        return self.task

    @property
    def columns(self) -> int:
        """Elements in a row."""
        return self.output.shape[-1] if self.output.shape else 1


@dataclass(frozen=True)
class Plan:
    """What is read, merged and written. `sources` are base (if it is read) and models, each folder and adapter."""

    spec: MergeSpec
    parameters: Parameters
    tensors: tuple[MergedTensor, ...]
    shards: tuple[Shard, ...]
    sources: tuple[SourceFolders, ...]
    layout: Model
    reads_base: bool
    copied: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def input_bytes(self) -> int:
        """Bytes of weights that are read (once)."""
        return sum(
            read.size for shard in self.shards for part in shard.parts for one in self.reads(part) for read in one
        )

    @property
    def output_bytes(self) -> int:
        """Bytes of all output files with weights."""
        return sum(shard.size for shard in self.shards)

    def inputs(self, index: int) -> list[Input | None]:
        """Where one tensor comes from in each source, in the order of `sources`; None: it is not read there."""
        tensor = self.tensors[index]
        base: list[Input | None] = (
            [tensor.matched.base if self._base_is_read(tensor) else None] if self.reads_base else []
        )
        return [*base, *tensor.matched.models]

    def _base_is_read(self, tensor: MergedTensor) -> bool:
        return self.parameters.based or any(source.needs_base for source in tensor.matched.models)

    def reads(self, part: Part) -> list[list[Read]]:
        """For each source, what to read for a part and where to put it in that source's buffer."""
        return [coalesced(wanted) for wanted in self._wanted(part)]

    def _wanted(self, part: Part) -> list[list[Read]]:
        wanted: list[list[Read]] = [[] for _ in self.sources]
        for span, places in zip(part.spans, self.places(part), strict=True):
            columns = self.tensors[span.tensor].columns
            for source, (one, at) in enumerate(zip(self.inputs(span.tensor), places, strict=True)):
                if one is not None:
                    wanted[source] += reads(one, columns, span.start, span.end, at)
        return wanted

    def places(self, part: Part) -> list[list[int]]:
        """For each span of a part and each source, where its bytes are in that source's buffer."""
        return self._placed(part)[0]

    def buffers(self, part: Part) -> list[int]:
        """The size of each source's buffer for a part, in bytes."""
        return self._placed(part)[1]

    def _placed(self, part: Part) -> tuple[list[list[int]], list[int]]:
        ends = [0] * len(self.sources)
        places = []
        for span in part.spans:
            inputs = self.inputs(span.tensor)
            columns = self.tensors[span.tensor].columns
            changed = any(one is not None and one.change is not None for one in inputs)
            begins = [aligned_if(end, changed) for end in ends]
            places.append(begins)
            ends = [
                extent(one, columns, span.start, span.end, begin) if one is not None else begin
                for one, begin in zip(inputs, begins, strict=True)
            ]
        return places, ends

    def knowing(self, across: Any) -> Plan:
        """The same plan, its tasks knowing what was found out about all tensors together."""
        return replace(
            self,
            tensors=tuple(replace(one, task=one.task and replace(one.task, across=across)) for one in self.tensors),
        )

    @cached_property
    def hash(self) -> str:
        """`sha256:` of everything that decides the output's bytes: spec, inputs with their tags, engine."""
        spec = self.spec.model_dump(mode="json", by_alias=True, include=_DECIDE)
        content = {
            "engine": ENGINE,
            "spec": spec,
            "sources": [[_snapshot(one.folder), one.adapter and _snapshot(one.adapter)] for one in self.sources],
            "layout": _snapshot(self.layout.folder),
            "files": [
                [shard.file, hashlib.sha256(shard.header).hexdigest(), [part.size for part in shard.parts]]
                for shard in self.shards
            ],
        }
        body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    @property
    def lineage(self) -> tuple[Ancestor, ...]:
        """What the output is made from."""
        folders = [(one.ref, folder) for one in self.sources for folder in (one.folder, one.adapter) if folder]
        folders.append(("base", self.layout.folder))
        seen: dict[str, Ancestor] = {}
        for ref, folder in folders:
            seen.setdefault(str(folder.uri), Ancestor(ref=ref, uri=str(folder.uri), digest=folder.digest))
        return tuple(seen.values())

    def config(self) -> bytes:
        """The output's config.json: the layout model's, with the dtype of the output."""
        config = dict(self.layout.config)
        kinds = {tensor.output.dtype for tensor in self.tensors if tensor.task}
        if len(kinds) == 1:
            name = _CONFIG_NAMES.get(next(iter(kinds)))
            config |= {key: name for key in ("torch_dtype", "dtype") if key in config}
            if name and "dtype" not in config and "torch_dtype" not in config:
                config["torch_dtype"] = name
        return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()

    def index(self) -> bytes | None:
        """`model.safetensors.index.json`, None for a single file."""
        if len(self.shards) == 1:
            return None
        table = {
            self.tensors[span.tensor].output.name: shard.file
            for shard in self.shards
            for part in shard.parts
            for span in part.spans
        }
        total = sum(tensor.output.bytes for tensor in self.tensors)
        return (json.dumps({"metadata": {"total_size": total}, "weight_map": table}, indent=2) + "\n").encode()


def aligned_if(place: int, needed: bool) -> int:
    """The next multiple of 8 if it is needed: reads that follow each other must stay together otherwise."""
    return -(-place // 8) * 8 if needed else place


def make_plan(
    spec: MergeSpec, *, base: SourceFolders | None, models: Sequence[SourceFolders], part_bytes: int = PART_BYTES
) -> Plan:
    """Reads headers and configurations, checks everything that can be known before the weights are read.

    Args:
        base: what `spec.base` came to; None without one.
        models: what `spec.models` came to, in their order. An adapter as source goes onto the base.
        part_bytes: about how much of the output is made and uploaded at a time.

    Raises:
        InvalidMerge, SourceUnusable, SourcesDiffer, SourceDamaged, SourceChanged, StorageError
    """
    opened: dict[str, Model] = {}
    base_model = _open("base", base, None, opened) if base else None
    found = [_open(name, source, base_model, opened) for name, source in zip(spec.model_names, models, strict=True)]
    layout = base_model or found[0]
    parameters = Parameters.of(spec, layers=depth(list(layout.tensors)), based=_takes_base(spec, base_model))
    matching = Matching(spec, layout, found, based=True)
    matched = matching.match()
    tensors = tuple(_tensor(one, spec, parameters) for one in matched)
    reads_base = parameters.based or any(source.needs_base for one in matched for source in one.models)
    folders = [
        SourceFolders(model.folder, model.adapter.folder if model.adapter else None, model.name) for model in found
    ]
    return Plan(
        spec=spec,
        parameters=parameters,
        tensors=tensors,
        shards=tuple(shards([tensor.output for tensor in tensors], spec.shard_bytes, part_bytes)),
        sources=tuple([SourceFolders(layout.folder, ref="base")] * reads_base + folders),
        layout=layout,
        reads_base=reads_base,
        copied=_copied(layout.folder, matching.notes),
        notes=tuple(matching.notes),
    )


def _takes_base(spec: MergeSpec, base: Model | None) -> bool:
    from .methods import REGISTRY

    contract = REGISTRY[spec.method.name](spec.method.settings).contract
    return base is not None and contract.base != "ignored"


def _open(name: str, source: SourceFolders, base: Model | None, opened: dict[str, Model]) -> Model:
    """Opens a model, each folder once; an adapter alone is put onto the base."""
    if is_adapter(source.folder) and "config.json" not in source.folder.files:
        if base is None:
            raise InvalidMerge(
                f"{source.folder.uri} is an adapter: it needs spec.base, the model that it was trained on"
            )
        adapter = open_adapter(source.folder)
        return Model(name, base.folder, base.tensors, base.config, _usable(adapter))
    key = str(source.folder.uri)
    model = opened.get(key) or open_model(name, source.folder)
    opened.setdefault(key, model)
    adapter_found = _usable(open_adapter(source.adapter)) if source.adapter else None
    return Model(name, model.folder, model.tensors, model.config, adapter_found)


def _usable(adapter: Adapter) -> Adapter:
    if adapter.transposed:
        raise InvalidMerge(
            f"{adapter.folder.uri}: fan_in_fan_out is set: merge this adapter into its base with PEFT first"
        )
    return adapter


def _tensor(matched: Matched, spec: MergeSpec, parameters: Parameters) -> MergedTensor:
    stored = matched.tensor
    if not matched.floating:
        step = block_step(stored.shape, rows=False)
        return MergedTensor(OutputTensor(stored.name, stored.dtype, stored.shape, step), matched, None)
    dtype = STORED[spec.output_dtype] if spec.output_dtype else stored.dtype
    if dtype not in STORED.values():
        raise InvalidMerge(f"{stored.name} is {stored.dtype} in the base: set outputDtype to bf16, fp16 or fp32")
    rows = parameters.method.rows or any(source.change or source.runs for source in matched.models)
    task = parameters.task(stored.name, stored.shape)
    return MergedTensor(
        OutputTensor(stored.name, dtype, stored.shape, block_step(stored.shape, rows=rows)), matched, task
    )


def _copied(folder: Folder, notes: list[str]) -> tuple[str, ...]:
    """Files that go along unchanged: tokenizer, templates, code. config.json is written anew."""
    chosen = []
    for name, found in folder.files.items():
        if "/" in name or name.endswith(_WEIGHTS) or name in _LEFT_OUT or name in {"config.json", INDEX}:
            continue
        if found.size > _MOST_COPIED_BYTES:
            notes.append(f"{name} ({found.size >> 20} MiB) is not copied: it is no weight file and too big")
            continue
        chosen.append(name)
    return tuple(sorted(chosen))


def _snapshot(folder: Folder) -> Mapping[str, Any]:
    return {
        "uri": str(folder.uri),
        "files": {name: [one.size, one.tag] for name, one in sorted(folder.files.items()) if not name.startswith(".")},
    }
