"""What stops a suite, in the words of docs/contracts.md §3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pinnace_operator.api.conditions import Reason

from pinnace.agent import PolicyError
from pinnace.chat import TokenizerError
from pinnace.outcome import InvalidData, InvalidSpec, ModelUnusable, OutOfReach

from ..errors import DataChanged, DataGated, DataInvalid, DataMissing, EndpointDown, EvalError


@contextmanager
def explained(where: str = "", *, down: Reason = Reason.ROLLOUT_FAILED) -> Iterator[None]:
    """Errors of the evaluation become failures of the stage.

    Args:
        where: field of the spec that is being looked at.
        down: the reason when an endpoint does not answer.
    """
    prefix = f"{where}: " if where else ""
    try:
        yield
    except EndpointDown as error:
        raise OutOfReach(down, f"{prefix}{error}") from error
    except (DataGated, DataMissing, DataChanged, DataInvalid) as error:
        raise InvalidData(f"{prefix}{error}") from error
    except (EvalError, PolicyError) as error:
        raise InvalidSpec(f"{prefix}{error}") from error
    except TokenizerError as error:
        raise ModelUnusable(f"spec.model: {error}") from error
