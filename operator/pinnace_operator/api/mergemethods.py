"""The parameters of each merge method, as users write them, with formula and paper.

In the formulas x0 is the base, x a model, d = x - x0 its task vector, w its weight. All is computed for each tensor.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, matches
from pinnace_operator.api.fields import DecimalString, decimal_between, whole
from pinnace_operator.api.shared import exactly_one

_SIGNED = r"-?[0-9]{1,9}(\.[0-9]{1,12})?([eE][-+]?[0-9]{1,2})?"
Signed = Annotated[DecimalString, matches(_SIGNED, 'must be a decimal in quotes, such as "0.5" or "-0.2"')]
Parameter = Annotated[str, Field(min_length=1, max_length=32)]
"""A parameter's name, such as weight, density, lambda or t."""
Share = Annotated[DecimalString, decimal_between("0", "1", 'must be a decimal in quotes from 0 to 1, such as "0.5"')]
Positive = Annotated[DecimalString, decimal_between("0", "1000000", "must be a decimal in quotes, not below 0")]


class Rescale(StrEnum):
    """How the kept part of a thinned task vector is scaled up."""

    NONE = "None"
    L1 = "L1"
    PAPER = "Paper"


class Trim(StrEnum):
    """Over what the largest changes are chosen."""

    TENSOR = "Tensor"
    MODEL = "Model"


class Mean(StrEnum):
    """How agreeing changes are averaged."""

    WEIGHTED = "Weighted"
    PLAIN = "Plain"


class Linear(ApiModel):
    """Weighted mean: sum(w x) / sum(w). Model soups, https://arxiv.org/abs/2203.05482."""

    normalize: bool = True
    """Divide by the sum of weights."""


class _TaskVectors(ApiModel):
    lambda_: Signed = Field(default="1", alias="lambda")
    """Scale of the merged task vector, a decimal in quotes."""


class TaskArithmetic(_TaskVectors):
    """x0 + lambda sum(w d). https://arxiv.org/abs/2212.04089."""

    normalize: bool = False
    """Divide by the sum of weights."""


class Ties(_TaskVectors):
    """Keeps the largest share `density` of each d, elects the sign of sum(w d), averages what agrees with it.

    https://arxiv.org/abs/2306.01708. The paper trims over the whole model and takes a plain mean: `trim: Model`,
    `mean: Plain`."""

    normalize: bool = True
    """Divide by the sum of the agreeing weights."""
    rescale: Rescale = Rescale.NONE
    """L1: scale what is kept to the L1 norm of the whole task vector."""
    trim: Trim = Trim.TENSOR
    """Choose the largest changes of each Tensor, as mergekit does, or of the whole Model, as the paper does."""
    mean: Mean = Mean.WEIGHTED
    """Average by weight, as mergekit does, or Plain, as the paper does (weights then only count in the election)."""


class DareLinear(_TaskVectors):
    """Drops each change with probability 1 - density, scales up the rest: x0 + lambda sum(w m d s).

    https://arxiv.org/abs/2311.03099."""

    normalize: bool = False
    """Divide by the sum of weights."""
    rescale: Rescale = Rescale.L1
    """L1: s restores the tensor's L1 norm, as mergekit does. Paper: s = 1 / density. None: s = 1."""


class DareTies(_TaskVectors):
    """As dareLinear, then the sign election of ties. https://arxiv.org/abs/2311.03099."""

    normalize: bool = False
    """Divide by the sum of the agreeing weights."""
    rescale: Rescale = Rescale.L1
    """L1: s restores the tensor's L1 norm, as mergekit does. Paper: s = 1 / density. None: s = 1."""


class DellaLinear(_TaskVectors):
    """As dareLinear, but the larger a change in its row, the likelier it stays: density ± epsilon by rank.

    https://arxiv.org/abs/2406.11617."""

    normalize: bool = False
    """Divide by the sum of weights."""
    rescale: Rescale = Rescale.L1
    """L1: one scale restores the tensor's L1 norm, as mergekit does. Paper: each element by 1 / its probability."""


class Della(_TaskVectors):
    """As dellaLinear, then the sign election of ties. https://arxiv.org/abs/2406.11617."""

    normalize: bool = True
    """Divide by the sum of the agreeing weights."""
    rescale: Rescale = Rescale.L1
    """L1: one scale restores the tensor's L1 norm, as mergekit does. Paper: each element by 1 / its probability."""


class Breadcrumbs(_TaskVectors):
    """Drops the share `gamma` of the largest changes, and the smallest down to `density`; x0 + lambda sum(w d).

    https://arxiv.org/abs/2312.06795."""

    normalize: bool = False
    """Divide by the sum of weights."""
    rescale: Rescale = Rescale.NONE
    """L1: scale what is kept to the L1 norm of the whole task vector."""


class BreadcrumbsTies(_TaskVectors):
    """As breadcrumbs, then the sign election of ties. https://arxiv.org/abs/2312.06795."""

    normalize: bool = False
    """Divide by the sum of the agreeing weights."""
    rescale: Rescale = Rescale.NONE
    """L1: scale what is kept to the L1 norm of the whole task vector."""


class Slerp(ApiModel):
    """Along the great circle from base (t = 0) to the model (t = 1), on whole tensors; a straight line if they are
    nearly parallel (|cos| > 0.9995). Exactly one model."""

    t: Signed
    """Where between base and model, a decimal in quotes."""


class Nuslerp(ApiModel):
    """Slerp of two models by weight, t = w2 / (w1 + w2); of their task vectors if there is a base."""

    flatten: bool = True
    """Take the whole tensor as one vector."""
    row_wise: bool = False
    """Without flatten: interpolate along the first dimension instead of the last."""


class Multislerp(ApiModel):
    """Weighted mean of any number of models on the sphere, in the tangent space at their weighted mean direction.

    https://goddard.blog/posts/multislerp-wow-what-a-cool-idea."""

    normalize_weights: bool = True
    """Divide the weights by their sum."""


class Karcher(ApiModel):
    """Karcher (Riemannian) mean of the models' directions, times the mean of their norms.

    https://arxiv.org/abs/2603.04972."""

    max_iterations: Annotated[int, whole(1, 1000)] = 10
    """Stop after so many steps."""
    tolerance: Positive = "1e-5"
    """Stop when a step is shorter than this."""


class ModelStock(ApiModel):
    """Between base and mean by the angle of the task vectors: t = k c / (1 + (k-1) c), c the mean cosine of k models.

    https://arxiv.org/abs/2403.19522. At least two models."""

    filter_wise: bool = False
    """One t for each row instead of each tensor."""


class Sce(ApiModel):
    """Selects the elements that differ most between models, weights models by their mean d², erases minority signs.

    https://arxiv.org/abs/2408.07990."""

    select_topk: Share = "1"
    """Share of the elements with the largest variance to keep."""


class Ram(ApiModel):
    """For agents trained by RL: a change that one model made is kept whole, one that several made is averaged.

    https://arxiv.org/abs/2601.13572."""

    epsilon: Positive = "1e-5"
    """Smaller changes don't count."""


class Ramplus(ApiModel):
    """As ram; a model's own changes times 1 + r clip(shared / own, 0, alpha). https://arxiv.org/abs/2601.13572."""

    r: Positive = "0.1"
    """Strength of the amplification."""
    alpha: Positive = "0.2"
    """Its bound."""
    epsilon: Positive = "1e-5"
    """Smaller changes don't count."""


_MEMBERS = (
    "linear", "taskArithmetic", "slerp", "nuslerp", "multislerp", "karcher", "ties", "dareLinear", "dareTies", "della",
    "dellaLinear", "breadcrumbs", "breadcrumbsTies", "modelStock", "sce", "ram", "ramplus",
)  # fmt: skip


_THINNING = ("ties", "dareLinear", "dareTies", "della", "dellaLinear", "breadcrumbs", "breadcrumbsTies")
PARAMETERS = {
    "weight": ("linear", "taskArithmetic", "nuslerp", "multislerp", *_THINNING),
    "density": _THINNING,
    "gamma": ("breadcrumbs", "breadcrumbsTies"),
    "epsilon": ("della", "dellaLinear"),
}
"""The parameters of a model, and the methods that have them."""
WITHOUT_BASE = ("linear", "karcher", "nuslerp", "multislerp")
"""Methods that work without a base."""


class MergeMethod(ApiModel):
    """How to merge: exactly one of its members, `{}` for a method's defaults."""

    linear: Linear | None = None
    task_arithmetic: TaskArithmetic | None = None
    slerp: Slerp | None = None
    nuslerp: Nuslerp | None = None
    multislerp: Multislerp | None = None
    karcher: Karcher | None = None
    ties: Ties | None = None
    dare_linear: DareLinear | None = None
    dare_ties: DareTies | None = None
    della: Della | None = None
    della_linear: DellaLinear | None = None
    breadcrumbs: Breadcrumbs | None = None
    breadcrumbs_ties: BreadcrumbsTies | None = None
    model_stock: ModelStock | None = None
    sce: Sce | None = None
    ram: Ram | None = None
    ramplus: Ramplus | None = None

    rules = (exactly_one("method", *_MEMBERS),)

    @property
    def name(self) -> str:
        """The method's name as mergekit and the papers write it, such as `dare_ties`."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> ApiModel:
        """Its parameters."""
        found: ApiModel = getattr(self, self.name)
        return found
