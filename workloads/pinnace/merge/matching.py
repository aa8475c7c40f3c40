"""Finds, for each tensor of the output, what it is made of in every source; refuses what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pinnace_operator.api.merge import Extra, Fp8, MergeSpec, Missing, TokenizerPolicy

from .errors import SourcesDiffer, SourceUnusable
from .inputs import Input, LowRank
from .source import Adapter, Model
from .tensors import FLOATS, FP8, StoredTensor
from .tokens import RowRun, align, tokenizer_identity, vocabulary

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_MOST_RUNS = 4096
_SHOWN = 3


@dataclass(frozen=True)
class Matched:
    """One tensor of the output: the layout model's, and where it comes from in the base and in each model."""

    tensor: StoredTensor
    base: Input | None
    models: tuple[Input, ...]

    @property
    def floating(self) -> bool:
        """Numbers that can be merged; others are copied if all agree."""
        return self.tensor.dtype in FLOATS


class Matching:
    """Matches the tensors of `models` with those of the layout model (the base, or without one the first model)."""

    def __init__(self, spec: MergeSpec, layout: Model, models: Sequence[Model], *, based: bool) -> None:
        self._spec = spec
        self._layout = layout
        self._models = models
        self._based = based
        self.notes: list[str] = []

    def match(self) -> list[Matched]:
        """All tensors of the output, in the order they lie in the layout model.

        Raises:
            SourcesDiffer: architecture, tokenizer, a tensor's shape, missing and extra tensors.
            SourceUnusable: fp8 where it is not allowed.
        """
        for model in self._models:
            self._check_architecture(model)
        runs = [self._vocabulary(model) for model in self._models]
        for model in self._models:
            self._check_extra(model)
        for model in {id(one): one for one in (self._layout, *self._models)}.values():
            self._check_fp8(model)
        ordered = sorted(self._layout.tensors.values(), key=lambda tensor: (tensor.file, tensor.start))
        return [
            Matched(
                tensor,
                Input(tensor) if self._based else None,
                tuple(self._input(model, tensor, run) for model, run in zip(self._models, runs, strict=True)),
            )
            for tensor in ordered
        ]

    def _input(self, model: Model, wanted: StoredTensor, runs: tuple[RowRun, ...]) -> Input:
        adapter = model.adapter
        if adapter and wanted.name in adapter.replaced:
            replaced = adapter.replaced[wanted.name]
            _check_shape(model, wanted, replaced.shape)
            return Input(replaced, folder=1)
        if model.folder.uri == self._layout.folder.uri:
            return Input(None, change=_change(adapter, wanted))  # the base's bytes, read once
        found = model.tensors.get(wanted.name) or self._tied(model, wanted)
        if found is None and self._spec.missing_tensors is Missing.REFUSE:
            raise SourcesDiffer(
                f"{model.folder.uri} has no {wanted.name}, which {self._layout.folder.uri} has: use models of the same "
                "architecture, or set missingTensors to TakeBase"
            )
        if found is not None and (found.dtype in FLOATS) != (wanted.dtype in FLOATS):
            raise SourcesDiffer(
                f"{wanted.name} is {found.dtype} in {model.folder.uri} and {wanted.dtype} in {self._layout.folder.uri}"
            )
        aligned = runs if found is not None and wanted.name.endswith((*EMBEDDINGS, *HEADS)) else ()
        if found is not None:
            _check_shape(model, wanted, (wanted.shape[0], *found.shape[1:]) if aligned else found.shape)
        return Input(found, runs=aligned, change=_change(adapter, wanted))

    def _tied(self, model: Model, wanted: StoredTensor) -> StoredTensor | None:
        """A model without a head of its own uses its embedding as head."""
        if not wanted.name.endswith(HEADS):
            return None
        found = next((tensor for name, tensor in model.tensors.items() if name.endswith(EMBEDDINGS)), None)
        if found:
            self.notes.append(f"{model.name} has no {wanted.name}: its embedding, which it is tied to, is taken")
        return found

    def _check_architecture(self, model: Model) -> None:
        layout = self._layout
        if model.architecture != layout.architecture:
            raise SourcesDiffer(
                f"{model.folder.uri} is a {', '.join(model.architecture)}, {layout.folder.uri} a "
                f"{', '.join(layout.architecture)}: only models of the same architecture can be merged"
            )

    def _vocabulary(self, model: Model) -> tuple[RowRun, ...]:
        layout = self._layout
        if model is layout or model.folder.uri == layout.folder.uri:
            return ()
        theirs, ours = tokenizer_identity(model.folder), tokenizer_identity(layout.folder)
        embedding = next((one for name, one in layout.tensors.items() if name.endswith(EMBEDDINGS)), None)
        found = model.tensors.get(embedding.name) if embedding else None
        same_rows = embedding is None or found is None or found.shape == embedding.shape
        if theirs == ours and same_rows:
            return ()
        if self._spec.tokenizer is not TokenizerPolicy.ALIGN_TO_BASE:
            what = (
                "another tokenizer than"
                if theirs != ours
                else f"embeddings for {found.shape[0] if found else 0} tokens, not as"
            )
            raise SourcesDiffer(
                f"{model.folder.uri} has {what} {layout.folder.uri}: the same ids would mean different tokens. "
                "Use models with the same tokenizer, or set tokenizer to AlignToBase"
            )
        if embedding is None or found is None:
            raise SourcesDiffer(f"{model.folder.uri}: no embedding found that could be aligned")
        rows = align(
            vocabulary(layout.folder), vocabulary(model.folder), base_rows=embedding.shape[0], model_rows=found.shape[0]
        )
        if len(rows) > _MOST_RUNS:
            raise SourcesDiffer(
                f"{model.folder.uri}: its vocabulary is shuffled against {layout.folder.uri}'s ({len(rows)} runs): "
                "these are different tokenizers; models can't be merged across them"
            )
        lacking = sum(run.end - run.start for run in rows if run.source is None)
        self.notes.append(f"{model.name}: vocabulary aligned in {len(rows)} runs; {lacking} rows are the base's")
        return tuple(rows)

    def _check_extra(self, model: Model) -> None:
        extra = [name for name in model.tensors if name not in self._layout.tensors]
        heads = [name for name in extra if name.endswith(HEADS)]
        if heads and model.tied:
            self.notes.append(f"{model.name}: {heads[0]} is a copy of its embedding and is left out")
            extra = [name for name in extra if name not in heads]
        if model.adapter:
            changed = [*model.adapter.pairs, *model.adapter.replaced]
            extra += [name for name in changed if name not in self._layout.tensors]
        if not extra:
            return
        shown = ", ".join(extra[:_SHOWN]) + (" …" if len(extra) > _SHOWN else "")
        if self._spec.extra_tensors is Extra.REFUSE:
            raise SourcesDiffer(
                f"{model.folder.uri} has {len(extra)} tensors that {self._layout.folder.uri} lacks ({shown}): "
                "use models of the same architecture, or set extraTensors to Ignore"
            )
        self.notes.append(f"{model.name}: {len(extra)} extra tensors are left out: {shown}")

    def _check_fp8(self, model: Model) -> None:
        narrow = next((one for one in model.tensors.values() if one.dtype in FP8), None)
        if narrow is None:
            return
        scales = next((name for name in model.tensors if name.endswith(("_scale_inv", "weight_scale", "_scale"))), None)
        if scales:
            raise SourceUnusable(
                f"{model.folder.uri}: {narrow.name} is {narrow.dtype} with scales ({scales}): convert the model to BF16"
            )
        if self._spec.fp8 is Fp8.REFUSE:
            raise SourceUnusable(
                f"{model.folder.uri}: {narrow.name} is {narrow.dtype}: convert the model to BF16, or set fp8 to Upcast"
            )


def _check_shape(model: Model, wanted: StoredTensor, shape: tuple[int, ...]) -> None:
    if shape != wanted.shape:
        raise SourcesDiffer(
            f"{wanted.name} has shape {list(shape)} in {model.folder.uri}, but {list(wanted.shape)} in the base: "
            "use models of the same size"
        )


def _change(adapter: Adapter | None, wanted: StoredTensor) -> LowRank | None:
    if adapter is None or wanted.name not in adapter.pairs:
        return None
    a, b, scale = adapter.pairs[wanted.name]
    if wanted.shape != (b.shape[0], a.shape[1]):
        raise SourcesDiffer(
            f"{wanted.name} has shape {list(wanted.shape)}, the adapter {adapter.folder.uri} changes one of "
            f"{[b.shape[0], a.shape[1]]}: give the model that it was trained on as base or source"
        )
    return LowRank(a, b, scale)
