"""Everything that can be wrong with a merge, as types. Every message says what, where and what to do."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


class MergeError(Exception):
    """Base of all errors of `pinnace.merge`."""


class InvalidMerge(MergeError):
    """The configuration can't work as it is written: a parameter, a missing base, too few models."""


class SourceUnusable(MergeError):
    """One source is no model that can be merged: no weights, a broken header, pickled weights, fp8 with scales."""


class SourcesDiffer(MergeError):
    """Two sources don't fit together: architecture, shape, missing or extra tensors, tokenizer."""


class SourceChanged(MergeError):
    """A source was replaced while it was read: its ETag, size or version is not what was planned with."""


class SourceDamaged(MergeError):
    """A source's content is wrong: a digest that is not its manifest's, NaN or infinity."""


class OutOfBudget(MergeError):
    """The memory limit is too small for this merge; the message says how much it takes."""


class Interrupted(MergeError):
    """The merge was asked to stop; what is uploaded stays, and the same merge goes on from there."""


def unknown(what: str, name: object, known: Collection[str]) -> InvalidMerge:
    """A name that is none of the known ones: says which are like it, or else all."""
    near = get_close_matches(str(name), known, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(known)}"
    return InvalidMerge(f"{what}: there is no {str(name)!r}: {remedy}")
