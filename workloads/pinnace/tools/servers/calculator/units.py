"""Converts between units of measure, with Pint's definitions."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pinnace.tools.servers.calculator.expression import CalculationError

# Units are words, products, quotients and small powers. Pint would also evaluate arithmetic, of any size.
_UNIT = re.compile(r"[A-Za-zµ°Ω%_][A-Za-zµ°Ω_]*( ?[*/] ?[A-Za-zµ°Ω_]+|\^-?\d|\*\*-?\d){0,8}")


@cache
def _registry() -> Any:
    """Made once: reading the definitions takes a fifth of a second."""
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


def convert(value: float, unit: str, to: str) -> float:
    """The value of `value unit` in `to` (`12.5`, `mile/hour`, `m/s`). Temperatures are degC, degF, kelvin.

    Raises:
        CalculationError: A unit is unknown, or the two measure different things.
    """
    import pint

    for each in (unit, to):
        if not _UNIT.fullmatch(each.strip()):
            raise CalculationError(f"{each!r} is no unit; write it like km, mile/hour, kg*m^2/s^2 or degC")
    registry = _registry()
    try:
        return float(registry.Quantity(value, registry.Unit(unit.strip())).to(registry.Unit(to.strip())).magnitude)
    except pint.UndefinedUnitError as error:
        raise CalculationError(str(error)) from None
    except (pint.PintError, ValueError, OverflowError) as error:
        raise CalculationError(f"{unit} can't be converted to {to}: {error}") from None
