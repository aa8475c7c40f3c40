"""The API refuses at once what the engine would refuse in the pod: both have the same table of methods."""

from __future__ import annotations

import pytest
from pinnace.merge.methods import REGISTRY, Contract
from pinnace_operator.api.mergemethods import PARAMETERS, WITHOUT_BASE, MergeMethod

ALIASES = {name: str(field.alias) for name, field in MergeMethod.model_fields.items()}


def contract(name: str) -> Contract:
    settings = {"t": "0"} if name == "slerp" else {}
    return REGISTRY[name](MergeMethod.model_validate({name: settings}).settings).contract


def test_every_method_of_the_engine_is_in_the_api() -> None:
    assert set(ALIASES) == set(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_method_takes_the_same_parameters_and_base_in_both(name: str) -> None:
    takes = {parameter for parameter, methods in PARAMETERS.items() if ALIASES[name] in methods}
    assert takes == set(contract(name).own)
    assert (ALIASES[name] in WITHOUT_BASE) == (contract(name).base != "required")


def test_the_numbers_of_models_are_those_of_the_rules() -> None:
    limited = {name: (c.least, c.most) for name in REGISTRY if (c := contract(name)).least > 1 or c.most is not None}
    assert limited == {"slerp": (1, 1), "nuslerp": (2, 2), "model_stock": (2, None)}
