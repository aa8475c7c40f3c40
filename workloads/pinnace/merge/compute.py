"""From bytes to bytes: decodes blocks, hands them to the method, encodes what it gives back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pinnace_operator.api.merge import ComputeDtype

from .errors import SourceDamaged, SourcesDiffer
from .inputs import Input, aligned
from .layout import Part, Shard, Span
from .methods import Block, Measure
from .plan import MergedTensor, Plan
from .tensors import SIZES, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

Buffer = memoryview
_LARGEST_FP16 = 65504.0


@dataclass
class PartData:
    """The bytes that were read for one part: a buffer for each source of the plan."""

    part: Part
    buffers: Sequence[Buffer]


class Compute:
    """The arithmetic of one plan on one device."""

    def __init__(self, plan: Plan, device: str = "cpu") -> None:
        import torch

        self._plan = plan
        self._device = torch.device(device)
        self._dtype = torch.float64 if plan.spec.compute_dtype is ComputeDtype.FP64 else torch.float32
        self._stored = {
            "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
            "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
        }  # fmt: skip
        self._method = plan.parameters.method

    def measure(self, measure: Measure, data: PartData, span: Span, place: Sequence[int], *, check: bool) -> Any:
        """What a measure finds in the blocks of one span, joined; None for an empty tensor."""
        joined = None
        for block in self._blocks(data, span, place, check=check):
            joined = join(measure, joined, measure.of(block))
        return joined

    def survey(self, data: PartData, span: Span, place: Sequence[int]) -> Any:
        """The whole survey of a tensor that lies in one part."""
        tensor = self._plan.tensors[span.tensor]
        survey = self._method.survey(tensor.merged)
        check = True
        try:
            measure = next(survey)
            while True:
                result = self.measure(measure, data, span, place, check=check)
                check = False
                measure = survey.send(result)
        except StopIteration as end:
            return end.value

    def part(self, shard: Shard, data: PartData, found: dict[int, Any]) -> bytearray:
        """The bytes of one part of the output. `found` has what was found out about tensors that span parts."""
        part = data.part
        body = bytearray(part.size)
        place = 0
        if part.number == 1:
            body[: len(shard.header)] = shard.header
            place = len(shard.header)
        for span, places in zip(part.spans, self._plan.places(part), strict=True):
            tensor = self._plan.tensors[span.tensor]
            size = (span.end - span.start) * SIZES[tensor.output.dtype]
            if size and tensor.task is None:
                body[place : place + size] = self._copied(tensor, data, places, size)
            elif size:
                self._merged(data, span, places, found, body, place)
            place += size
        return body

    def _merged(
        self, data: PartData, span: Span, places: Sequence[int], found: dict[int, Any], body: bytearray, place: int
    ) -> None:
        import torch

        tensor = self._plan.tensors[span.tensor]
        task = tensor.merged
        surveyed = self._method.surveyed(task)
        if not surveyed:
            known = None
        elif span.tensor in found:
            known = found[span.tensor]
        else:
            known = self.survey(data, span, places)
        target = torch.frombuffer(
            body, dtype=self._stored[tensor.output.dtype], count=span.end - span.start, offset=place
        )
        for block in self._blocks(data, span, places, check=not surveyed):
            merged = self._method.merge(block, task, known)
            first = block.start - span.start
            self._check_result(merged, tensor)
            target[first : first + merged.numel()] = merged

    def _check_result(self, merged: Tensor, tensor: MergedTensor) -> None:
        if tensor.output.dtype == "F16" and float(merged.abs().max()) > _LARGEST_FP16:
            raise SourcesDiffer(
                f"{tensor.output.name}: merged values exceed {_LARGEST_FP16:g}, the largest of fp16: "
                "set outputDtype to bf16"
            )
        if not math.isfinite(float(merged.sum())) and not bool(merged.isfinite().all()):
            raise SourceDamaged(
                f"{tensor.output.name}: the merged values are not finite: weights or lambda are too large"
            )

    def _blocks(self, data: PartData, span: Span, places: Sequence[int], *, check: bool) -> Iterator[Block]:
        tensor = self._plan.tensors[span.tensor]
        inputs = self._plan.inputs(span.tensor)
        changes = [self._change(one, tensor, data.buffers[i], places[i], span) for i, one in enumerate(inputs)]
        reads_base = self._plan.reads_base
        for start in range(span.start, span.end, tensor.output.step):
            end = min(span.end, start + tensor.output.step)
            base: Tensor | None = None
            models: list[Tensor] = []
            for i, source in enumerate(inputs):
                is_base = reads_base and i == 0
                if source is None:
                    continue
                value = self._decoded(source, base, data.buffers[i], places[i], span, start, end, tensor)
                if check and source.tensor is not None:
                    self._check_finite(value, i, source.tensor)
                if changes[i] is not None:
                    value = value + changes[i][start - span.start : end - span.start]
                if is_base:
                    base = value
                else:
                    models.append(value)
            yield Block(start, base if self._plan.parameters.based else None, tuple(models), span.tensor)

    def _decoded(
        self,
        source: Input,
        base: Tensor | None,
        buffer: Buffer,
        place: int,
        span: Span,
        start: int,
        end: int,
        tensor: MergedTensor,
    ) -> Tensor:
        if source.tensor is None:
            return _given(base)
        value = self._raw(source.tensor, buffer, place, start - span.start, end - start)
        if not any(run.source is None for run in source.runs):
            return value
        rest = _given(base)
        value = value.clone()
        columns = tensor.columns
        for run in source.runs:
            low, high = max(run.start * columns, start) - start, min(run.end * columns, end) - start
            if run.source is None and low < high:
                value[low:high] = rest[low:high]
        return value

    def _raw(self, tensor: StoredTensor, buffer: Buffer, place: int, first: int, count: int) -> Tensor:
        import torch

        stored = torch.frombuffer(
            buffer, dtype=self._stored[tensor.dtype], count=count, offset=place + first * tensor.itemsize
        )
        return stored.to(self._device, self._dtype)

    def _change(self, source: Input | None, tensor: MergedTensor, buffer: Buffer, place: int, span: Span) -> Any:
        """What an adapter adds to the rows of a span, flat; None without one."""
        if source is None or source.change is None:
            return None
        rows = (span.end - span.start) // tensor.columns
        begin = aligned(place + (source.tensor.itemsize * (span.end - span.start) if source.tensor else 0))
        a, b = source.change.a, source.change.b
        low = self._raw(a, buffer, begin, 0, a.size).view(a.shape)
        high = self._raw(b, buffer, aligned(begin + a.end - a.start), 0, rows * b.shape[1]).view(rows, b.shape[1])
        return (high @ low * source.change.scale).flatten()

    def _check_finite(self, value: Tensor, source: int, tensor: StoredTensor) -> None:
        # A sum is cheap, and it is finite unless an element is not (or very large ones add up: hence the second look).
        if math.isfinite(float(value.sum())) or bool(value.isfinite().all()):
            return
        where = self._plan.sources[source].folder.uri / tensor.file
        raise SourceDamaged(f"{tensor.name} holds NaN or infinity in {where}: this model is broken, use another")

    def _copied(self, tensor: MergedTensor, data: PartData, places: Sequence[int], size: int) -> Buffer:
        """Buffers that are no floating-point numbers: all sources must agree."""
        inputs = self._plan.inputs(self._plan.tensors.index(tensor))
        bodies = [
            data.buffers[i][places[i] : places[i] + size]
            for i, one in enumerate(inputs)
            if one is not None and one.tensor is not None
        ]
        if any(body != bodies[0] for body in bodies[1:]):
            raise SourcesDiffer(
                f"{tensor.output.name} ({tensor.output.dtype}) differs between the models and can't be merged: "
                "make it the same in all"
            )
        return bodies[0]


def _given(base: Tensor | None) -> Tensor:
    """The base's numbers: the plan reads them wherever they are needed."""
    if base is None:
        raise TypeError("the base was not read")
    return base


def join(measure: Measure, joined: Any, result: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Adds one result of a measure to those before."""
    if joined is None:
        return result
    if measure.join == "append":
        return np.concatenate([joined, result])
    joined += result
    return np.asarray(joined)
