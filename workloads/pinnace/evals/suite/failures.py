"""What stops a suite, in the words of docs/contracts.md §3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pinnace_operator.api.conditions import Reason

from pinnace.agent import PolicyError
from pinnace.chat import TokenizerError
from pinnace.outcome import InvalidData, InvalidSpec, ModelUnusable, OutOfReach
from pinnace.storage import NotFound

from ..errors import (
    DataChanged,
    DataGated,
    DataInvalid,
    DataMissing,
    EndpointDown,
    EvalError,
    ToolsRefused,
    ToolsUnavailable,
)

_FIELDS = {
    "--judge-url, --judge-model and, by the environment, PINNACE_JUDGE_API_KEY": "spec.judge",
    "--context": "agent.contextTokens",
    "--max-tokens": "agent.turnTokens",
    "--dialect hermes": "agent.dialect Hermes",
    "--revision <commit>": "revision <commit>",
    "--checksum": "checksum",
    "--model": "engine.external.model",
    "at least -k": "attempts of at least",
    "--tools http://…": "spec.toolSandbox",
    "--offer": "toolSandbox.tools",
    "check the address and the token": "check toolSandbox.tenant and its token",
}
"""What the command's options are called in the spec."""


@contextmanager
def explained(where: str = "", *, down: Reason = Reason.ROLLOUT_FAILED) -> Iterator[None]:
    """Errors of the evaluation become failures of the stage.

    Args:
        where: field of the spec that is being looked at.
        down: the reason when an endpoint does not answer.
    """
    try:
        yield
    except EndpointDown as error:
        raise OutOfReach(down, _told(where, error)) from error
    except ToolsRefused as error:
        raise InvalidSpec(_told(where, error)) from error
    except ToolsUnavailable as error:
        raise OutOfReach(Reason.UNAVAILABLE, _told(where, error)) from error
    except (DataGated, DataMissing, DataChanged, DataInvalid, NotFound) as error:
        raise InvalidData(_told(where, error)) from error
    except (EvalError, PolicyError) as error:
        raise InvalidSpec(_told(where, error)) from error
    except TokenizerError as error:
        raise ModelUnusable(f"spec.model: {error}") from error


def _told(where: str, error: Exception) -> str:
    text = str(error)
    for option, name in _FIELDS.items():
        text = text.replace(option, name)
    return f"{where}: {text}" if where else text
